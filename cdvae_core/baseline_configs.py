"""What each of the systems that CDVAE is compared with is made of.

Frozen and validated, as `cdvae_core.config`. Defaults are the sizes of the systems' own papers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cdvae_core.config import check_positive
from cdvae_core.errors import ConfigError


@dataclass(frozen=True)
class BaselineConfig:
    """What every system has.

    Attributes:
        max_atoms: most atoms of a crystal.
        prop: the property that it learns, where it learns one.
    """

    learns_property: ClassVar[bool] = False
    max_atoms: int = 20
    prop: str | None = None

    def __post_init__(self) -> None:
        check_positive(self, "model.", "kl_weight", "prop_weight", "perceptual_weight", "padding")
        if self.prop is not None and not self.learns_property:
            raise ConfigError("model.prop: this system learns no property; leave it out")


@dataclass(frozen=True)
class FTCPConfig(BaselineConfig):
    """FTCP (Ren et al. 2022): a 1D convolutional VAE on real and reciprocal space features.

    Attributes:
        max_elements: most different elements in a crystal.
        reciprocal_points: how many (hkl) are described.
        channels: of the three convolutions.
        dense_hidden: between the convolutions and the latent.
        kl_weight, prop_weight: of the loss, against errors that are summed over a batch of 256.
    """

    learns_property: ClassVar[bool] = True
    max_elements: int = 3
    reciprocal_points: int = 59
    latent_dim: int = 256
    channels: int = 32
    dense_hidden: int = 1024
    kl_weight: float = 2.0
    prop_weight: float = 10.0


@dataclass(frozen=True)
class DFCVAEConfig(BaselineConfig):
    """Cond-DFC-VAE (Court et al. 2020): voxels of cubic cells.

    Attributes:
        voxels: along each edge of the box, a power of two.
        padding: of the cell on each side of it, as a fraction of the edge.
        width, unet_width: channels of the first convolution of the VAE, and of the U-Net.
        conditions: how many bins of the property (deciles).
        unet_share: of the epochs, in which the U-Net is trained before the VAE.
        perceptual_weight, kl_weight: of the loss.
    """

    learns_property: ClassVar[bool] = True
    max_atoms: int = 5
    voxels: int = 32
    padding: float = 0.25
    latent_dim: int = 256
    width: int = 16
    unet_width: int = 32
    conditions: int = 10
    unet_share: float = 0.2
    perceptual_weight: float = 0.5
    kl_weight: float = 3e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.voxels < 16 or self.voxels & (self.voxels - 1):
            raise ConfigError(
                f"model.voxels is {self.voxels}, but must be a power of two from 16 on"
            )
        if self.padding == 0 or self.unet_share >= 1:
            raise ConfigError(
                f"model.padding is {self.padding} and model.unet_share {self.unet_share}, but must "
                "be above 0 and below 1"
            )


@dataclass(frozen=True)
class GSchNetConfig(BaselineConfig):
    """G-SchNet (Gebauer et al. 2019): atoms are placed one after the other.

    Attributes:
        features, interactions: of the SchNet.
        cutoff: of its interactions, Å.
        gaussians: that distances are expanded in.
        bins, farthest: of the predicted distances, Å.
    """

    features: int = 128
    interactions: int = 9
    cutoff: float = 10.0
    gaussians: int = 25
    bins: int = 300
    farthest: float = 15.0


@dataclass(frozen=True)
class PGSchNetConfig(GSchNetConfig):
    """P-G-SchNet: G-SchNet with periodic distances, in a lattice drawn from the training data."""


@dataclass(frozen=True)
class SubstitutionConfig(BaselineConfig):
    """Ion substitution (Hautier et al. 2011) into the crystals of the training split.

    Attributes:
        tries: draws for one crystal before it is given up.
    """

    tries: int = 200


SYSTEMS: dict[str, type[BaselineConfig]] = {
    "ftcp": FTCPConfig,
    "dfc_vae": DFCVAEConfig,
    "gschnet": GSchNetConfig,
    "p_gschnet": PGSchNetConfig,
    "substitution": SubstitutionConfig,
}


def config_of(system: object) -> type[BaselineConfig]:
    """The class of a system's configuration.

    Raises:
        ConfigError: no system has that name.
    """
    if not isinstance(system, str) or system not in SYSTEMS:
        raise ConfigError(f"no system is called {system!r}; there are {', '.join(SYSTEMS)}")
    return SYSTEMS[system]
