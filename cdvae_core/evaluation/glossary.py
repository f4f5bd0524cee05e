"""What each figure means, in a person's words, and what it hides: `glossary.toml`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Meaning:
    """One figure.

    Attributes:
        title: a few words.
        better: "higher", "lower", or "" where neither is.
        share: whether it is a share, to be shown in percent.
        says: what it is, and what it hides.
    """

    title: str
    better: str
    share: bool
    says: str


MEANINGS = {
    name: Meaning(**values)
    for name, values in tomllib.loads(
        (Path(__file__).parent / "glossary.toml").read_text(encoding="utf-8")
    ).items()
}

VARIANTS = {  # of a shipped report, after its task: generation_gaussian is from N(0, 1)
    "": "",
    "gaussian": "z from N(0, 1)",
    "many": "as many as the paper",
    "exchange": "elements exchanged",
    "tries": "most consistent of several",
    "flow": "ascent in the flow",
    "guided": "guided",
}

_COUNTED = {
    "crystals": "crystals",
    "reference": "of the reference",
    "sample": "in the sample of valid ones",
    "tries": "scored for each",
    "starts": "starts",
}


def with_variant(name: str, variant: str) -> str:
    """A name and, in words, which of `VARIANTS` it is of; another variant keeps its own word."""
    words = VARIANTS.get(variant, variant)
    return f"{name}, {words}" if words else name


def counted(counts: dict[str, int]) -> str:
    """How many crystals a figure is over, in words."""
    return ", ".join(f"{value:,} {_COUNTED[name]}" for name, value in counts.items())


def shown(name: str, value: float | None) -> str:
    """A figure as a person reads it."""
    if value is None or value != value:
        return "–"
    meaning = MEANINGS.get(name)
    return f"{100 * value:.2f} %" if meaning and meaning.share else f"{value:.4f}"
