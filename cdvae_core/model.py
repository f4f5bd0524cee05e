"""CDVAE: crystals to latents, latents to aggregates, and the score of a noisy crystal (D.1 - D.3).

    encode      PGNN_ENC(M) -> mu, log variance of q(z | M); with `config.encode_aggregates` from
                N, lattice and composition, too
    aggregates  MLP_AGG(z) -> number of atoms N, lattice L, composition c; with
                `config.linear_aggregates` linear maps of z
    score       PGNN_DEC(M~ | z) -> s_X(M~ | z) and p_A(M~ | z)
    property    F(z), trained jointly (G.3)

No loops and no files here: `losses` trains it, `langevin` samples from it, `checkpoint` keeps it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from cdvae_core.config import ModelConfig
from cdvae_core.crystal import MAX_ATOMIC_NUMBER, CrystalBatch
from cdvae_core.graph import MultiGraph, PeriodicImages, knn_graph
from cdvae_core.lattice import matrix_to_parameters, parameters_to_matrix
from cdvae_core.nn.dimenet import DimeNetPlusPlus
from cdvae_core.nn.gemnet import GemNet
from cdvae_core.scalers import CONSTANT_STD, Scalers

_TAME_LOGVAR = 2.0  # beyond, the variance grows linearly: an exponential overflowed in training
_LEAST_SINE = 0.05  # a predicted cell flatter than this is opened to it
_SHARPNESS = 4.0  # of the bend below which an element is not there
_TRACE = 1e-6  # of every element, so that its logarithm is finite
_SHORTEST_LENGTH = 0.8  # Å per cube root of an atom; a predicted length is never below it


@dataclass(frozen=True, eq=False)
class Aggregates:
    """What MLP_AGG says of a crystal as a whole.

    Attributes:
        num_atoms: `[crystals, max_atoms + 1]`, logits of N = 0, 1, ...
        lattice: `[crystals, 6]`, standardised lengths / N^(1/3) and angles.
        composition: `[crystals, 100]`, logits of the elements: log c and a constant.
    """

    num_atoms: Float[Tensor, "crystals sizes"]
    lattice: Float[Tensor, "crystals 6"]
    composition: Float[Tensor, "crystals elements"]

    @property
    def likeliest_num_atoms(self) -> Int[Tensor, " crystals"]:
        """The most probable N; never 0, since no crystal has no atoms."""
        return self.num_atoms[:, 1:].argmax(-1) + 1

    def drawn_num_atoms(self, generator: torch.Generator) -> Int[Tensor, " crystals"]:
        """N drawn from its distribution, on the generator's device; never 0."""
        shares = self.num_atoms[:, 1:].softmax(-1).to(generator.device)
        return torch.multinomial(shares, 1, generator=generator)[:, 0] + 1

    def repeat(self, times: int) -> Aggregates:
        """The same crystals several times over."""
        return Aggregates(*(values.repeat(times, 1) for values in vars(self).values()))


@dataclass(frozen=True, eq=False)
class Score:
    """The decoder's answer.

    Attributes:
        vectors: `[atoms, 3]`, the raw output, without unit: times sigma_x it is the displacement
            in Å towards the clean crystal, divided by sigma_x the score s_X(M~ | z; sigma).
        types: `[atoms, 100]`, logits of the true elements.
    """

    vectors: Float[Tensor, "atoms 3"]
    types: Float[Tensor, "atoms elements"]


def _mlp(width: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, out))


def _last(mlp: nn.Sequential) -> nn.Linear:
    layer = mlp[-1]
    assert isinstance(layer, nn.Linear)
    return layer


def _fold(
    layer: nn.Linear,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    new_mean: tuple[float, ...],
    new_std: tuple[float, ...],
) -> None:
    """Let a layer that gave (y - mean) / std give (y - new_mean) / new_std."""
    m, s, new_m, new_s = (layer.bias.new_tensor(v) for v in (mean, std, new_mean, new_std))
    layer.weight.mul_((s / new_s)[:, None])
    layer.bias.mul_(s).add_(m - new_m).div_(new_s)


class CDVAE(nn.Module):
    """The whole model.

    Args:
        config: sizes and noise levels.
        scalers: how the lattice and the property were standardised.

    `provenance` says where the weights come from (dataset, fingerprint, recipe, epochs...); it is
    saved and loaded with them.
    """

    def __init__(self, config: ModelConfig, scalers: Scalers | None = None) -> None:
        super().__init__()
        self.config = config
        self.scalers = scalers or Scalers()
        self.provenance: dict[str, Any] = {}
        enc, latent, hidden = config.encoder, config.latent_dim, config.head_hidden
        self.encoder = DimeNetPlusPlus(**vars(enc), out_dim=latent)
        self.fc_aggregates: nn.Linear | None = None
        if config.encode_aggregates:
            self.add_aggregates()
        self.fc_mu = nn.Linear(latent, latent)
        self.fc_logvar = nn.Linear(latent, latent)
        self.add_heads()
        self.fc_property = _mlp(latent, hidden, 1) if config.prop else None
        self.decoder = GemNet(config.decoder, latent)

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu") -> CDVAE:
        """A trained model from its folder, in evaluation mode. See `checkpoint.load`."""
        from cdvae_core.checkpoint import load

        return load(path, device)

    def save(self, path: str | Path) -> None:
        """Weights and configuration into a folder. See `checkpoint.save`."""
        from cdvae_core.checkpoint import save

        save(self, path)

    def encode(
        self, crystals: CrystalBatch, graph: MultiGraph
    ) -> tuple[Float[Tensor, "crystals latent"], Float[Tensor, "crystals latent"]]:
        """mu and log variance of q(z | M)."""
        pooled = self.encoder(crystals, graph)
        if self.fc_aggregates is not None:
            pooled = pooled + self.fc_aggregates(self._known_aggregates(crystals).to(pooled.dtype))
        logvar = self.fc_logvar(pooled)
        beyond = (logvar - _TAME_LOGVAR).clamp_min(0.0)
        return self.fc_mu(pooled), logvar.clamp_max(_TAME_LOGVAR) + beyond.log1p()

    def add_aggregates(self) -> None:
        """Let the encoder see N, lattice and composition; before training they change nothing."""
        inputs = 6 + self.config.max_atoms + 1 + MAX_ATOMIC_NUMBER
        self.fc_aggregates = nn.Linear(inputs, self.config.latent_dim)
        nn.init.zeros_(self.fc_aggregates.weight)
        nn.init.zeros_(self.fc_aggregates.bias)

    def _known_aggregates(self, crystals: CrystalBatch) -> Float[Tensor, "crystals known"]:
        """Lengths / N^(1/3) in Å and cosines of the angles, N as one of its values, composition."""
        lengths, angles = matrix_to_parameters(crystals.lattice)
        num_atoms = crystals.num_atoms[:, None]
        lattice = torch.cat([lengths / num_atoms ** (1 / 3), angles.deg2rad().cos()], 1)
        sizes = functional.one_hot(crystals.num_atoms, self.config.max_atoms + 1)
        return torch.cat([lattice, sizes, crystals.element_counts / num_atoms], dim=1)

    def add_heads(self) -> None:
        """New heads for N, lattice and composition, as the configuration has them."""
        linear, latent = self.config.linear_aggregates, self.config.latent_dim

        def head(out: int) -> nn.Sequential:
            if linear:
                return nn.Sequential(nn.Linear(latent, out))
            return _mlp(latent, self.config.head_hidden, out)

        self.fc_num_atoms = head(self.config.max_atoms + 1)
        self.fc_lattice = head(6)
        self.fc_composition = head(MAX_ATOMIC_NUMBER)

    def aggregates(self, z: Float[Tensor, "crystals latent"]) -> Aggregates:
        composition = self.fc_composition(z)
        if self.config.linear_aggregates:  # the amounts are linear in z, not their logarithms
            amounts = functional.softplus(composition, beta=_SHARPNESS)
            composition = (amounts + _TRACE).log()
        return Aggregates(self.fc_num_atoms(z), self.fc_lattice(z), composition)

    def lattice(
        self, standardised: Float[Tensor, "crystals 6"], num_atoms: Int[Tensor, " crystals"]
    ) -> Float[Tensor, "crystals 3 3"]:
        """The cell, in Å, that six standardised parameters mean for crystals of N atoms."""
        values = self.scalers.lattice_from_standard(standardised)
        lengths = values[:, :3].clamp_min(_SHORTEST_LENGTH) * num_atoms[:, None] ** (1 / 3)
        return parameters_to_matrix(lengths, values[:, 3:].clamp(30, 150), _LEAST_SINE)

    def score(
        self,
        z: Float[Tensor, "crystals latent"],
        crystals: CrystalBatch,
        images: PeriodicImages | None = None,
    ) -> Score:
        """s_X and p_A of noisy crystals, given the latent of the clean ones.

        Args:
            images: the periodic images of these lattices, where they are already known.
        """
        decoder = self.config.decoder
        graph = knn_graph(crystals, decoder.neighbours, decoder.cutoff, images)
        latent = self.decoder.embed_latent(z)[crystals.crystal_of_atom]
        return Score(*self.decoder(latent, crystals.atomic_numbers, graph))

    def predict_property(self, z: Float[Tensor, "crystals latent"]) -> Float[Tensor, " crystals"]:
        """F(z), in the property's own unit.

        Raises:
            RuntimeError: the model was trained without a property.
        """
        if self.fc_property is None:
            raise RuntimeError("this model was trained without a property (config.prop is null)")
        return self.scalers.prop_from_standard(self.fc_property(z)[:, 0])

    @torch.no_grad()
    def restandardise(self, scalers: Scalers, prop: bool) -> None:
        """Change to other scalers, with the same predictions in Å, degrees and the property's unit.

        The change goes into the last layers of the heads. A lattice parameter that the new data do
        not vary is predicted as their mean: the old slope, in its tiny units, would be enormous.

        Args:
            scalers: the new ones.
            prop: whether the property is still the same one; if not, its head keeps its weights.
        """
        old, last = self.scalers, _last(self.fc_lattice)
        _fold(last, old.lattice_mean, old.lattice_std, scalers.lattice_mean, scalers.lattice_std)
        varied, now = (torch.tensor(s.lattice_std) > 2 * CONSTANT_STD for s in (old, scalers))
        last.weight[varied & ~now], last.bias[varied & ~now] = 0.0, 0.0
        if prop and self.fc_property is not None:
            _fold(
                _last(self.fc_property),
                (old.prop_mean,), (old.prop_std,), (scalers.prop_mean,), (scalers.prop_std,),
            )  # fmt: skip
        self.scalers = scalers

    @property
    def device(self) -> torch.device:
        return self.fc_mu.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.fc_mu.weight.dtype
