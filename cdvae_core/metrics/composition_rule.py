"""Is a composition plausible? The published rule (G.2), SMACT's, decided without enumeration.

A composition is valid if it is one element, if all its elements are metals, or if each element can
take one of its oxidation states so that the charges cancel and every cation is less electronegative
than every anion (Pauling). The published code tries every product of states, which explodes with
the number of elements. Here every cut in the order of electronegativity is tried instead: elements
below may be cations, those above anions, and which total charges they can reach are the bits of an
integer.

"Published" means SMACT 2.2.1: its oxidation states, which today's SMACT keeps as `smact14`, and
what it did where an electronegativity is missing (see `_unknown_passes`). SMACT's default states
have changed since; `current_rule` is the verdict of the installed version.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, lru_cache, reduce
from math import gcd
from operator import or_

import numpy as np
import smact
from smact.utils.oxidation import ICSD24OxStatesFilter

from cdvae_core.crystal import SYMBOLS

States = Sequence[int]


def published_rule(atomic_numbers: Sequence[int] | np.ndarray) -> bool:
    """The verdict of the published evaluation on the atoms of a cell."""
    return _valid(atomic_numbers, _published_states, missing_passes=True)


def current_rule(atomic_numbers: Sequence[int] | np.ndarray) -> bool:
    """The verdict of the installed SMACT with its default oxidation states."""
    return _valid(atomic_numbers, _current_states, missing_passes=False)


def _valid(
    atomic_numbers: Sequence[int] | np.ndarray,
    states_of: Callable[[str], States],
    missing_passes: bool,
) -> bool:
    found = sorted(Counter(int(z) for z in atomic_numbers).items())
    symbols = [SYMBOLS[z] for z, _ in found]
    if len(symbols) == 1 or all(symbol in _metals() for symbol in symbols):
        return True
    divisor = gcd(*(count for _, count in found))
    charges = [
        [count // divisor * state for state in states_of(symbol)]
        for symbol, (_, count) in zip(symbols, found, strict=True)
    ]
    electronegativity = [_electronegativity(symbol) for symbol in symbols]
    known = [own for own in electronegativity if own is not None]
    if len(known) < len(symbols):
        return missing_passes and _unknown_passes(charges, electronegativity)
    return any(
        _can_cancel(
            [
                [c for c in choices if (c >= 0 if own <= limit else c <= 0)]
                for choices, own in zip(charges, known, strict=True)
            ]
        )
        for limit in set(known)
    )


def _unknown_passes(charges: list[list[int]], electronegativity: list[float | None]) -> bool:
    """The verdict of SMACT 2.2.1 where an electronegativity is missing (Pm, Rn).

    It compares pairs in the order of the elements. A known pair in the wrong order fails; a cation
    and an anion of which one is unknown raise a TypeError, which the published code takes as
    passing; any other pair with an unknown one fails. So the first element decides, together with
    the first unknown one (or with the second element, if it is unknown itself), and whatever comes
    later is free.
    """
    unknown = max(1, electronegativity.index(None))
    known = [own for own in electronegativity[:unknown] if own is not None]
    for sign in (1, -1):
        allowed = [[c for c in charges[0] if c * sign > 0]]
        for choices, own in zip(charges[1:unknown], known[1:], strict=True):
            wrong = known[0] >= own if sign > 0 else known[0] <= own
            allowed.append([c for c in choices if c * sign >= 0] if wrong else choices)
        allowed.append([c for c in charges[unknown] if c * sign < 0])
        if _can_cancel([*allowed, *charges[unknown + 1 :]]):
            return True
    return False


def _can_cancel(choices: Sequence[Sequence[int]]) -> bool:
    """Whether one number from each list can be chosen so that they add up to zero."""
    reachable, lowest = 1, 0  # bit i: the sum lowest + i can be reached
    for numbers in choices:
        if not numbers:
            return False
        least = min(numbers)
        lowest += least
        reachable = reduce(or_, (reachable << (number - least) for number in numbers))
    return lowest <= 0 and bool(reachable >> -lowest & 1)


@lru_cache(maxsize=1)
def _metals() -> frozenset[str]:
    return frozenset(smact.metals)


@cache
def _electronegativity(symbol: str) -> float | None:
    return smact.Element(symbol).pauling_eneg


@cache
def _published_states(symbol: str) -> States:
    return smact.Element(symbol).oxidation_states_smact14 or []


def _current_states(symbol: str) -> States:
    return _icsd24().get(symbol, [])


@lru_cache(maxsize=1)
def _icsd24() -> dict[str, list[int]]:
    """As SMACT's own validity check filters them by default."""
    table = ICSD24OxStatesFilter().filter(consensus=3, include_zero=False, commonality="low")
    return {
        str(element): [int(state) for state in str(states).split()]
        for element, states in zip(table["element"], table["oxidation_state"], strict=True)
    }
