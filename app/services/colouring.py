"""What the points of the map are coloured by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.services.latent_map import LatentMap
from cdvae_core.crystal import SYMBOLS

ELEMENTS, NUM_ELEMENTS, DENSITY, SPLIT = "Elements", "Number of elements", "Density", "Split"
SYSTEM, GUESS, ERROR = "Crystal system", "The model's guess", "Reconstruction error"
MAX_CLASSES = 6
SYSTEMS = (
    "cubic", "hexagonal", "trigonal", "tetragonal", "orthorhombic", "monoclinic", "triclinic",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Colouring:
    """One value or one class per point.

    Attributes:
        title: what it is, in words.
        unit: of the values.
        values: `[points]`, NaN where unknown; None for classes.
        classes: `[points]`, place in `names`, -1 for none of them; None for values.
        names: of the classes.
    """

    title: str
    values: np.ndarray | None = None
    classes: np.ndarray | None = None
    names: tuple[str, ...] = ()
    unit: str = ""


def choices(of: LatentMap, errors: bool = False) -> list[str]:
    """What a map can be coloured by: its properties first.

    Args:
        errors: whether reconstructions of its crystals are known.
    """
    return [
        *of.properties,
        *([GUESS] if of.guesses is not None else []),
        *([ERROR] if errors else []),
        SYSTEM,
        ELEMENTS,
        NUM_ELEMENTS,
        DENSITY,
        *([SPLIT] if len(of.splits) > 1 else []),
    ]


def colouring(
    of: LatentMap,
    by: str,
    elements: Sequence[str] = (),
    systems: np.ndarray | None = None,
    guessed: str = "",
    errors: np.ndarray | None = None,
) -> Colouring:
    """The colours of all points.

    Args:
        by: one of `choices`.
        systems: of every point, for `SYSTEM`.
        guessed: which property the guess is of.
        errors: of every point, for `ERROR`; NaN where it did not match or was not tried.
        elements: for `ELEMENTS`, up to six symbols; a crystal gets the first that it contains.
    """
    if by == ELEMENTS:
        return _by_elements(of, elements[:MAX_CLASSES])
    if by == SYSTEM and systems is not None:
        present = tuple(name for name in SYSTEMS if (systems == name).any())
        places = {name: i for i, name in enumerate(present)}
        classes = np.array([places.get(name, -1) for name in systems])
        return Colouring(by, classes=classes, names=present)
    if by == GUESS and of.guesses is not None:
        title = f"{readable(guessed)}, guessed" if guessed else by
        return Colouring(title, of.guesses.astype(np.float32), unit=of.units.get(guessed, ""))
    if by == ERROR and errors is not None:
        return Colouring(ERROR, errors.astype(np.float32), unit="(V/N)^⅓")
    if by == SPLIT:
        names = tuple(of.splits)
        places = {name: i for i, name in enumerate(names)}
        return Colouring(by, classes=np.array([places[s] for s in of.split_names]), names=names)
    if by == NUM_ELEMENTS:
        known = np.unique(of.num_elements)
        if len(known) <= MAX_CLASSES:
            classes = np.searchsorted(known, of.num_elements)
            return Colouring(by, classes=classes, names=tuple(str(n) for n in known))
        return Colouring(by, values=of.num_elements.astype(np.float32))
    if by == DENSITY:
        return Colouring(by, values=of.density.astype(np.float32), unit="g/cm³")
    return Colouring(readable(by), of.prop(by).astype(np.float32), unit=of.units.get(by, ""))


def _by_elements(of: LatentMap, elements: Sequence[str]) -> Colouring:
    classes = np.full(len(of), -1)
    for place, symbol in reversed(list(enumerate(elements))):
        classes[of.fractions[:, SYMBOLS.index(symbol)] > 0] = place
    return Colouring(ELEMENTS, classes=classes, names=tuple(elements))


def with_unit(name: str, unit: str) -> str:
    """A column's name in words, with its unit if it has one."""
    return f"{readable(name)}, {unit}" if unit else readable(name)


def readable(name: str) -> str:
    """A column's name in words: formation_energy_per_atom -> Formation energy per atom."""
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]
