"""Crystals of a split, drawn once and for all, and what a model makes of them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from cdvae_core.consistency import AS_DECODED, Consistency
from cdvae_core.crystal import Crystal
from cdvae_core.data.cache import open_split
from cdvae_core.decode import decode
from cdvae_core.encode import encode_split
from cdvae_core.langevin import Schedule
from cdvae_core.model import CDVAE


def there_and_back(
    model: CDVAE, part: str, n: int, seed: int = 0, consistency: Consistency = AS_DECODED
) -> tuple[list[Crystal], Float[Tensor, "crystals latent"], list[Crystal | None]]:
    """Crystals, their mu, and what is decoded from it by the fast schedule.

    Args:
        part: of the data that the model was trained on.
        seed: of the noise.
    """
    split = open_split(model.provenance["dataset"], part)
    places = split.some(n, torch.Generator().manual_seed(0))
    mu = encode_split(model, split, places, None)
    names = [split.ids[i] for i in places]
    schedule = Schedule.named("fast", model.config.noise)
    steps = decode(model, mu, names, schedule, seed, consistency=consistency)
    made = [item.crystal for _, done in steps for item in done]
    return [split.crystal(i) for i in places], mu, made
