"""Crystals of a preprocessed split to latents."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from cdvae_core.data.cache import CachedSplit
from cdvae_core.model import CDVAE

_BATCH = 256


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
    """
    parts = []
    for first in range(0, len(indices), _BATCH):
        batch = split.batch(list(indices[first : first + _BATCH]), None).to(model.device)
        mu, logvar = model.encode(batch.crystals, batch.graph)
        mu, logvar = mu.cpu(), logvar.cpu()
        if generator is not None:
            mu = mu + (0.5 * logvar).exp() * torch.randn(mu.shape, generator=generator)
        parts.append(mu)
    return torch.cat(parts)
