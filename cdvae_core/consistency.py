"""What the encoder says of a decoding: is this the crystal that the latent means?

While there is much noise, denoising settles which element takes which site, and never comes back to
it. The decoder does not notice a wrong choice, but the encoder does: a crystal with two elements
exchanged has another latent. So what was decoded is encoded again. Of several decodings the one is
meant whose mu is nearest to z (`nearest`); and where other places for its elements bring mu nearer,
they get them (`mended`). Nothing is asked but z.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float
from torch import Tensor

from cdvae_core.crystal import Crystal
from cdvae_core.encode import encode_alike, encode_crystal
from cdvae_core.errors import ConfigError, StructureError
from cdvae_core.model import CDVAE

_SHORTEST = 0.5  # Å
_FEW = 256  # arrangements to compare all: those of five atoms are at most 120
NEARER = 0.8  # of the distance: sites of one kind exchange their elements for next to nothing


@dataclass(frozen=True)
class Consistency:
    """What is asked of the encoder about decodings; nothing, as in the paper, unless it is said.

    Attributes:
        tries: decodings of each latent, of which the nearest is kept.
        exchange: whether elements of the one that is kept are exchanged where that brings it
            nearer.

    Raises:
        ConfigError: no try.
    """

    tries: int = 1
    exchange: bool = False

    def __post_init__(self) -> None:
        if self.tries < 1:
            raise ConfigError(f"tries is {self.tries}, but must be at least 1")

    def check_as_decoded(self) -> None:
        """Refuse anything but one decoding as it is, which is all that a trajectory can show.

        Raises:
            ConfigError: more than one try, or exchanges.
        """
        if self != AS_DECODED:
            raise ConfigError(
                "a trajectory shows one decoding as it is: leave out --trajectory, or --tries and "
                "--exchange"
            )

    def choose(
        self, model: CDVAE, z: Float[Tensor, " latent"], made: Sequence[tuple[Crystal | None, str]]
    ) -> tuple[Crystal | None, str]:
        """What to keep of the decodings of one latent, each a crystal and what is wrong with it."""
        place = nearest(model, z, [one for one, _ in made]) if len(made) > 1 else 0
        crystal, problem = made[place]
        if crystal is not None and self.exchange:
            crystal = mended(model, z, crystal)
        return crystal, problem


AS_DECODED = Consistency()


def distance(model: CDVAE, z: Float[Tensor, " latent"], crystal: Crystal | None) -> float:
    """From z to mu of a crystal; infinite where it is none, or cannot be encoded.

    Atoms in one place count as none: CrystalNN may take forever over a knot of them.
    """
    return _encoded(model, z, crystal)[0]


def nearest(model: CDVAE, z: Float[Tensor, " latent"], decodings: Sequence[Crystal | None]) -> int:
    """The place of the decoding whose mu is nearest to z; else of any crystal, the first."""
    distances = [distance(model, z, crystal) for crystal in decodings]
    return min(range(len(distances)), key=lambda i: (distances[i], decodings[i] is None))


def mended(
    model: CDVAE, z: Float[Tensor, " latent"], crystal: Crystal, nearer: float = NEARER
) -> Crystal:
    """The crystal with its elements where the encoder expects them, atoms and cell as they are.

    Of all arrangements, where they are few, else of all exchanges of two unlike atoms, the one is
    taken that brings mu nearest to z, and then the same again, for as long as the distance falls
    below `nearer` times what it was. They are compared with the bonds that the crystal has, since
    CrystalNN would take longer over so many than the decoder does; whether the best of them is
    nearer is asked with its own. A cell of N atoms has up to N (N - 1) / 2 exchanges to be encoded
    each time.
    """
    here, bonds = _encoded(model, z, crystal)
    for _ in range(len(crystal.atomic_numbers) - 1):  # so many exchanges reach every arrangement
        others = _arrangements(crystal)
        if bonds is None or not others:
            break
        mu = encode_alike(model, others, bonds)
        best = others[int((mu - z).norm(dim=1).argmin())]
        there, its_bonds = _encoded(model, z, best)
        if not there < nearer * here:
            break
        crystal, here, bonds = best, there, its_bonds
    return crystal


def _encoded(
    model: CDVAE, z: Float[Tensor, " latent"], crystal: Crystal | None
) -> tuple[float, tuple[np.ndarray, ...] | None]:
    """How far mu is from z, and the bonds that it was encoded with; infinite and None if it
    cannot be."""
    from cdvae_core.data.preprocess import crystal_nn_edges
    from cdvae_core.structures import to_structure

    if crystal is None or not to_structure(crystal).is_valid(tol=_SHORTEST):
        return math.inf, None
    try:
        bonds = crystal_nn_edges(crystal)
        far = float((encode_crystal(model, crystal, bonds) - z).norm())
    except StructureError:  # no bonds, an element that the encoder does not know
        return math.inf, None
    return (far, bonds) if math.isfinite(far) else (math.inf, None)


def _arrangements(crystal: Crystal) -> list[Crystal]:
    """The crystal with its elements in other places: in all, or each two of them exchanged."""
    from sympy.utilities.iterables import multiset_permutations

    numbers = crystal.atomic_numbers.tolist()
    same = math.prod(math.factorial(count) for count in Counter(numbers).values())
    if math.factorial(len(numbers)) // same <= _FEW:
        others = [other for other in multiset_permutations(numbers) if other != numbers]
    else:
        others = []
        for i, j in combinations(range(len(numbers)), 2):
            if numbers[i] != numbers[j]:
                other = list(numbers)
                other[i], other[j] = numbers[j], numbers[i]
                others.append(other)
    return [Crystal(np.array(one), crystal.frac_coords, crystal.lattice) for one in others]
