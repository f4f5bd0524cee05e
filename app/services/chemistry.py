"""How formulas are written, and what a periodic cell weighs."""

from __future__ import annotations

import warnings
from collections import Counter
from functools import cache
from math import gcd

import numpy as np
from ase.data import atomic_masses

from cdvae_core.crystal import SYMBOLS

AMU_PER_A3 = 1.66053906660  # g/cm3
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
_DIGITS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")


@cache
def _electronegativity() -> dict[int, float]:
    from pymatgen.core import Element

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # noble gases have none
        known = {z: Element.from_Z(z).X for z in range(1, 101)}
    return {z: x if x == x else 10.0 for z, x in known.items()}  # those come last


def formula(atomic_numbers: np.ndarray) -> str:
    """The reduced formula, electropositive elements first, such as SrTiO3."""
    counts = Counter(np.asarray(atomic_numbers).tolist())
    shared = gcd(*counts.values())
    order = sorted(counts, key=lambda z: (_electronegativity()[z], z))
    return "".join(f"{SYMBOLS[z]}{_count(counts[z] // shared)}" for z in order)


def _count(number: int) -> str:
    return "" if number == 1 else str(number)


def pretty(text: str) -> str:
    """A formula with its digits as subscripts: SrTiO₃."""
    return text.translate(_SUBSCRIPTS)


def plain(text: str) -> str:
    """The other way."""
    return text.translate(_DIGITS)


def density(atomic_numbers: np.ndarray, volume: float) -> float:
    """g/cm3, of atoms in a volume in Å3."""
    return float(atomic_masses[atomic_numbers].sum() / volume * AMU_PER_A3)
