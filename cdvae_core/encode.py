"""Crystals of a preprocessed split to latents."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cdvae_core.crystal import MAX_ATOMIC_NUMBER, Crystal, CrystalBatch
from cdvae_core.data.cache import CachedSplit
from cdvae_core.errors import ConfigError
from cdvae_core.graph import MultiGraph
from cdvae_core.model import CDVAE
from cdvae_core.prior import Labelled

_BATCH = 256  # crystals
_ATOMS = 5000  # in arrangements that are encoded together


@torch.no_grad()
def encode_split(
    model: CDVAE,
    split: CachedSplit,
    indices: Sequence[int],
    generator: torch.Generator | None = None,
) -> Float[Tensor, "crystals latent"]:
    """mu of the chosen crystals, or draws from q(z | M) where a generator is given; on the CPU.

    Args:
        generator: on the CPU; draws z = mu + sigma eps.

    Raises:
        ConfigError: a crystal has more atoms than an encoder that counts them knows.
    """
    most = int(split.num_atoms[list(indices)].max()) if len(indices) else 0
    if model.config.encode_aggregates and most > model.config.max_atoms:
        raise ConfigError(
            f"a crystal has {most} atoms, but the checkpoint was made for up to "
            f"{model.config.max_atoms}"
        )
    parts = []
    for first in range(0, len(indices), _BATCH):
        batch = split.batch(list(indices[first : first + _BATCH]), None).to(model.device)
        mu, logvar = model.encode(batch.crystals, batch.graph)
        mu, logvar = mu.cpu(), logvar.cpu()
        if generator is not None:
            mu = mu + (0.5 * logvar).exp() * torch.randn(mu.shape, generator=generator)
        parts.append(mu)
    return torch.cat(parts)


def encode_crystal(
    model: CDVAE, crystal: Crystal, edges: Sequence[np.ndarray | list]
) -> Float[Tensor, " latent"]:
    """mu of one crystal, on the model's device.

    Args:
        edges: source, target and image, as of `data.preprocess.crystal_nn_edges`.
    """
    return encode_alike(model, [crystal], edges)[0]


@torch.no_grad()
def encode_alike(
    model: CDVAE, crystals: Sequence[Crystal], edges: Sequence[np.ndarray | list]
) -> Float[Tensor, "crystals latent"]:
    """mu of crystals that have the same bonds, such as one with its elements in other places.

    Args:
        crystals: all of the same number of atoms.
        edges: of each of them, as of `data.preprocess.crystal_nn_edges`.

    Returns:
        On the model's device.

    Raises:
        StructureError: an element that the encoder does not know.
    """
    source, target, image = (torch.as_tensor(part, dtype=torch.int64) for part in edges)
    parts = []
    size = max(1, _ATOMS // len(crystals[0].atomic_numbers))
    for first in range(0, len(crystals), size):
        batch = CrystalBatch.from_crystals(crystals[first : first + size])
        count = batch.num_crystals
        shift = (torch.arange(count) * int(batch.num_atoms[0])).repeat_interleave(len(source))
        graph = MultiGraph(
            source.repeat(count) + shift, target.repeat(count) + shift, image.repeat(count, 1)
        )
        mu, _ = model.encode(batch.to(model.device), graph.to(model.device))
        parts.append(mu)
    return torch.cat(parts)


def labelled(model: CDVAE, split: CachedSplit) -> Labelled:
    """mu of a whole split, with what a prior can be asked for."""
    index = range(len(split))
    elements = torch.zeros(len(split), MAX_ATOMIC_NUMBER, dtype=torch.bool)
    crystal = np.repeat(np.arange(len(split)), split.num_atoms)
    elements[crystal, split.arrays["atomic_numbers"].astype(np.int64) - 1] = True
    prop = split.properties.get(model.config.prop or "", np.full(len(split), np.nan))
    return Labelled(
        encode_split(model, split, index),
        torch.tensor(prop, dtype=torch.float32),
        torch.tensor(split.num_atoms, dtype=torch.int64),
        elements,
    )
