"""Cond-DFC-VAE (Court et al. 2020): a conditional VAE of voxels, and a U-Net that reads them.

The U-Net learns first to tell species from densities. Then the VAE learns to give back density and
coordinate channels, its outputs being compared also as the U-Net sees them. Both know the decile of
the crystal's property. To decode, the U-Net reads what the VAE made, and a watershed finds the
sites.

The grid is one cube for all: a cell that is not cubic has no place in it, and is refused rather
than distorted. What counts as cubic moves no site by more than a thousandth of the cell's length, a
fiftieth of a voxel of the published grid.

Sizes, losses and their weights are the published ones, with two exceptions. There is no batch norm
between the VAE's last convolution and its ReLU: the scale of a density says what its elements are,
and would be another in each batch. And the perceptual loss is relative to the variance of each
level's features: their scale is an accident of how the U-Net was trained, and of its batch norms.
What is different in the voxels and the U-Net is said there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from cdvae_core.baseline_configs import DFCVAEConfig
from cdvae_core.baselines.protocol import Baseline, Batch, Made
from cdvae_core.baselines.unet3d import UNet3d
from cdvae_core.baselines.voxels import (
    Box,
    CubicBatch,
    cell_length,
    channels,
    cube_rotations,
    decode,
    species_map,
)
from cdvae_core.data.cache import CachedSplit
from cdvae_core.errors import ConfigError, DatasetError, StructureError
from cdvae_core.optimise import Goal

CUBIC = 1e-3  # how far lengths (of their mean) and cosines of angles may be off
_AT_ONCE = 16  # crystals that are computed together
_AROUND = 0.5  # standard deviation about a start's latent, as published
_START = 4  # voxels along an edge of the decoder's first grid, and its channels
_LEAST_VARIANCE = 1e-6  # of features, where all of a level should be dead
_SLOPE = 0.3  # of every leaky ReLU
_REFUSED = "dfc_vae has no place for it: not cubic, too many atoms, or its property is unknown"


def _widths(config: DFCVAEConfig) -> list[int]:
    """Of the VAE's convolutions, from the grid down to two voxels along an edge; 16 to 128."""
    return [config.width * 2**level for level in range(config.voxels.bit_length() - 2)]


def _block(into: int, out: int) -> tuple[nn.Module, ...]:
    return nn.Conv3d(into, out, 3, padding=1), nn.BatchNorm3d(out), nn.LeakyReLU(_SLOPE)


class Encoder(nn.Module):
    """Voxels and condition to the mean and the log-variance of z."""

    def __init__(self, config: DFCVAEConfig) -> None:
        super().__init__()
        widths = _widths(config)
        blocks: list[nn.Module] = []
        for i, o in zip([4 + config.conditions, *widths[:-1]], widths, strict=True):
            blocks += [*_block(i, o), nn.MaxPool3d(2)]
        last = nn.Conv3d(widths[-1], 4, 3, padding=1)
        self.convolutions = nn.Sequential(*blocks, last, nn.LeakyReLU(_SLOPE), nn.Flatten())
        self.dense = nn.Linear(4 * 2**3, config.latent_dim)
        self.mean = nn.Linear(config.latent_dim, config.latent_dim)
        self.log_variance = nn.Linear(config.latent_dim, config.latent_dim)

    def forward(
        self,
        voxels: Float[Tensor, "crystals 4 voxels voxels voxels"],
        condition: Float[Tensor, "crystals conditions"],
    ) -> tuple[Float[Tensor, "crystals latent"], Float[Tensor, "crystals latent"]]:
        tiled = condition[..., None, None, None].expand(-1, -1, *voxels.shape[2:])
        h = self.dense(self.convolutions(torch.cat([voxels, tiled], 1))).relu()
        return self.mean(h), self.log_variance(h)


class Decoder(nn.Module):
    """z and condition to voxels."""

    def __init__(self, config: DFCVAEConfig) -> None:
        super().__init__()
        widths = [_START, *reversed(_widths(config))]
        self.dense = nn.Linear(config.latent_dim + config.conditions, _START**4)
        blocks: list[nn.Module] = []
        for i, o in pairwise(widths):
            blocks += [*_block(i, o), nn.Upsample(scale_factor=2.0)]
        last = nn.Conv3d(widths[-1], 4, 3, padding=1)
        self.convolutions = nn.Sequential(*blocks[:-1], last, nn.ReLU())

    def forward(
        self,
        z: Float[Tensor, "crystals latent"],
        condition: Float[Tensor, "crystals conditions"],
    ) -> Float[Tensor, "crystals 4 voxels voxels voxels"]:
        h = self.dense(torch.cat([z, condition], 1))
        return self.convolutions(h.view(-1, _START, _START, _START, _START))


class DFCVAE(Baseline):
    """The conditional VAE, its U-Net, and the deciles of the property.

    Attributes:
        deciles: the property's values between one bin and the next.
    """

    config: DFCVAEConfig
    deciles: Tensor
    rotations: Tensor

    def __init__(self, config: DFCVAEConfig) -> None:
        super().__init__(config)
        self.stages = (config.unet_share,)
        self.box = Box(config.voxels, config.padding)
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.unet = UNet3d(config.unet_width, len(_widths(config)) - 1)
        self.register_buffer("deciles", torch.zeros(config.conditions - 1))
        self.register_buffer("rotations", cube_rotations(), persistent=False)

    @classmethod
    def build(cls, config: DFCVAEConfig, train: CachedSplit) -> DFCVAE:
        """The networks and the deciles of a training split.

        Raises:
            ConfigError: no property for the condition, or a crystal that is not cubic.
        """
        if config.prop is None:
            raise ConfigError("model.prop is null, but is what dfc_vae's condition is made of")
        _check(train, config)
        model = cls(config)
        inner = np.linspace(0, 1, config.conditions + 1)[1:-1]
        edges = np.quantile(train.properties[config.prop], inner)
        model.deciles.copy_(torch.from_numpy(edges))
        return model

    def examples(self, split: CachedSplit) -> Dataset[Batch]:
        _check(split, self.config)
        return _Examples(split, self.config)

    def losses(
        self, batch: Batch, generator: torch.Generator, progress: float
    ) -> dict[str, Tensor]:
        """Of the U-Net in its share of the training, then of the VAE.

        Crystals are turned by random multiples of 90 degrees, as published. Then the U-Net is
        frozen, batch norms too: what the VAE makes is not to move them.
        """
        given = _cubic_batch(batch)
        turns = torch.randint(
            len(self.rotations), given.length.shape, generator=generator, device=self.device
        )
        given = given.rotated(self.rotations[turns])
        voxels = channels(given, self.box)
        segmenting = progress < self.config.unet_share
        self.unet.requires_grad_(segmenting).train(self.training and segmenting)
        if segmenting:
            return self.unet.losses(voxels, species_map(given, self.box))
        condition = self._condition(self._bins(batch["prop"]))
        mean, log_variance = self.encoder(voxels, condition)
        noise = torch.randn(mean.shape, generator=generator, device=self.device)
        made = self.decoder(mean + noise * (log_variance / 2).exp(), condition)
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean() / 2
        with torch.no_grad():
            wanted = self.unet.features(voxels)
        seen = zip(self.unet.features(made), wanted, strict=True)
        relative = [F.mse_loss(a, b) / b.var().clamp(min=_LEAST_VARIANCE) for a, b in seen]
        return {
            "voxels": F.mse_loss(made, voxels),
            "perceptual": self.config.perceptual_weight * torch.stack(relative).sum(),
            "kl": self.config.kl_weight * divergence,
        }

    def sample(self, count: int, generator: torch.Generator) -> Iterator[Made]:
        """From z of N(0, 1), on the training data's conditions: of deciles, each is as likely."""
        z = self._noise(count, generator)
        bins = torch.randint(
            self.config.conditions, (count,), generator=generator, device=self.device
        )
        yield from self._decode(z, bins)

    def reconstruct(
        self, split: CachedSplit, places: Sequence[int], generator: torch.Generator
    ) -> Iterator[Made]:
        """From the mean of z, on the crystals' own conditions; nothing is drawn."""
        fit = _fitting(split, self.config)[list(places)]
        yield from _in_place(fit, self._decode(*self._encode(split, places, fit)))

    def optimise(
        self,
        split: CachedSplit,
        places: Sequence[int],
        goal: Goal,
        kept: int,
        generator: torch.Generator,
    ) -> Iterator[list[Made]]:
        """Around the mean of z of each start, on condition of the goal's decile."""
        wanted = {-1: 0, 1: self.config.conditions - 1}.get(goal.direction)
        if wanted is None:
            wanted = int(self._bins(self.deciles.new_tensor([goal.target])))
        fit = _fitting(split, self.config)[list(places)]
        mean, bins = self._encode(split, places, fit)
        for _ in range(kept):
            z = mean + _AROUND * self._noise(len(mean), generator)
            yield list(_in_place(fit, self._decode(z, torch.full_like(bins, wanted))))

    def _bins(self, prop: Float[Tensor, " crystals"]) -> Int[Tensor, " crystals"]:
        return torch.bucketize(prop, self.deciles)

    def _condition(self, bins: Int[Tensor, " crystals"]) -> Float[Tensor, "crystals conditions"]:
        return F.one_hot(bins, self.config.conditions).to(self.deciles.dtype)

    def _noise(self, count: int, generator: torch.Generator) -> Float[Tensor, "count latent"]:
        shape = (count, self.config.latent_dim)
        return torch.randn(shape, generator=generator, device=self.device)

    @torch.no_grad()
    def _encode(
        self, split: CachedSplit, places: Sequence[int], fit: np.ndarray
    ) -> tuple[Float[Tensor, "fitting latent"], Int[Tensor, " fitting"]]:
        """Means of z and the bins of the property, of the crystals that fit the grid."""
        examples, good = _Examples(split, self.config), np.asarray(places)[fit]
        means = [torch.zeros(0, self.config.latent_dim, device=self.device)]
        bins = [torch.zeros(0, dtype=torch.long, device=self.device)]
        for first in range(0, len(good), _AT_ONCE):
            batch = examples.__getitems__(good[first : first + _AT_ONCE].tolist())
            batch = {name: value.to(self.device) for name, value in batch.items()}
            bins.append(self._bins(batch["prop"]))
            voxels = channels(_cubic_batch(batch), self.box)
            means.append(self.encoder(voxels, self._condition(bins[-1]))[0])
        return torch.cat(means), torch.cat(bins)

    def _decode(
        self, z: Float[Tensor, "crystals latent"], bins: Int[Tensor, " crystals"]
    ) -> Iterator[Made]:
        for some, their in zip(z.split(_AT_ONCE), bins.split(_AT_ONCE), strict=True):
            with torch.no_grad():
                voxels = self.decoder(some, self._condition(their))
                species = self.unet.segment(voxels).cpu().numpy()
                lengths = cell_length(voxels[:, 1:], self.box).tolist()
            for one, length in zip(species, lengths, strict=True):
                try:
                    yield decode(one, length, self.box)
                except StructureError as error:
                    yield error


@dataclass(frozen=True)
class _Examples(Dataset):
    """Atomic numbers and fractional coordinates padded to `max_atoms`, lengths, the property."""

    split: CachedSplit
    config: DFCVAEConfig

    def __len__(self) -> int:
        return len(self.split)

    def __getitems__(self, places: list[int]) -> Batch:
        batch = self.split.batch(places, self.config.prop)
        crystals = batch.crystals
        there = torch.arange(self.config.max_atoms) < crystals.num_atoms[:, None]
        numbers = torch.zeros(there.shape, dtype=torch.long)
        coords = torch.zeros(*there.shape, 3)
        numbers[there], coords[there] = crystals.atomic_numbers, crystals.frac_coords
        return {
            "atomic_numbers": numbers,
            "frac_coords": coords,
            "length": torch.linalg.det(crystals.lattice).abs() ** (1 / 3),
            "prop": batch.prop,
        }


def _cubic_batch(batch: Batch) -> CubicBatch:
    return CubicBatch(batch["atomic_numbers"], batch["frac_coords"], batch["length"])


def _check(split: CachedSplit, config: DFCVAEConfig) -> None:
    """Refuse a split with crystals that the grid has no place for.

    Raises:
        ConfigError: there is one.
    """
    unfit = len(split) - int(_fitting(split, config).sum())
    if unfit:
        raise ConfigError(
            f"dfc_vae takes cubic cells of at most {config.max_atoms} atoms and known {config.prop}"
            f", and {unfit} of the {len(split)} crystals of {split.info.dataset} "
            f"{split.info.split} are not: choose perov_5 or perov_like"
        )


def _fitting(split: CachedSplit, config: DFCVAEConfig) -> Bool[np.ndarray, " crystals"]:
    """Which crystals have a place in the grid: cubic, not too many atoms, with the property.

    Raises:
        DatasetError: the split has no such property.
    """
    lattice = split.arrays["lattice"].astype(np.float64)
    products = lattice @ lattice.mT / np.cbrt(np.linalg.det(lattice) ** 2)[:, None, None]
    cubic = np.abs(products - np.eye(3)).max((1, 2)) <= CUBIC
    if config.prop is None or config.prop not in split.properties:
        raise DatasetError(f"{split.info.dataset} has no property {config.prop!r} for dfc_vae")
    known = np.isfinite(split.properties[config.prop])
    return cubic & known & (split.num_atoms <= config.max_atoms)


def _in_place(fit: np.ndarray, made: Iterator[Made]) -> Iterator[Made]:
    """What was made of the crystals that fit, and for each other an error."""
    for fits in fit.tolist():
        yield next(made) if fits else StructureError(_REFUSED)
