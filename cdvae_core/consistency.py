"""Several decodings of one latent, and which of them is meant: the one whose own latent is nearest.

While there is much noise, denoising settles which element takes which site, and never comes back to
it. The decoder does not notice a wrong choice, but the encoder does: a crystal with two elements
exchanged has another latent. So the decodings are encoded again. Nothing is asked but z.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from cdvae_core.crystal import Crystal
from cdvae_core.encode import encode_crystal
from cdvae_core.errors import StructureError
from cdvae_core.model import CDVAE

_SHORTEST = 0.5  # Å


def distance(model: CDVAE, z: Float[Tensor, " latent"], crystal: Crystal | None) -> float:
    """From z to mu of a crystal; infinite where it is none, or cannot be encoded.

    Atoms in one place count as none: CrystalNN may take forever over a knot of them.
    """
    from cdvae_core.data.preprocess import crystal_nn_edges
    from cdvae_core.structures import to_structure

    if crystal is None or not to_structure(crystal).is_valid(tol=_SHORTEST):
        return math.inf
    try:
        mu = encode_crystal(model, crystal, crystal_nn_edges(crystal))
    except StructureError:  # no bonds, an element that the encoder does not know
        return math.inf
    far = float((mu - z).norm())
    return far if math.isfinite(far) else math.inf


def nearest(model: CDVAE, z: Float[Tensor, " latent"], decodings: Sequence[Crystal | None]) -> int:
    """The place of the decoding whose mu is nearest to z; else of any crystal, the first."""
    distances = [distance(model, z, crystal) for crystal in decodings]
    return min(range(len(distances)), key=lambda i: (distances[i], decodings[i] is None))
