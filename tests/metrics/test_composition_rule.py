"""The rule against SMACT itself, and against enumeration as the published code does it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import smact
from smact.screening import smact_validity

from cdvae_core.crystal import SYMBOLS
from cdvae_core.metrics.composition_rule import current_rule, published_rule

UNKNOWN = {"Pm", "Rn", "He", "Ne", "Ar"}  # without an electronegativity


def drawn(count: int, elements: list[int], most: int = 4) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    made = []
    for _ in range(count):
        k = rng.integers(1, most + 1)
        made.append((rng.choice(elements, k, replace=False), rng.integers(1, 7, k)))
    return made


def formula(numbers: np.ndarray, counts: np.ndarray) -> str:
    return "".join(f"{SYMBOLS[z]}{n}" for z, n in zip(numbers, counts, strict=True))


def test_a_thousand_compositions_as_smact_judges_them() -> None:
    known = [z for z in range(1, 95) if SYMBOLS[z] not in UNKNOWN]
    verdicts = []
    for numbers, counts in drawn(1000, known):
        atoms, name = np.repeat(numbers, counts), formula(numbers, counts)
        assert published_rule(atoms) == smact_validity(name, oxidation_states_set="smact14"), name
        assert current_rule(atoms) == smact_validity(name), name
        verdicts.append(published_rule(atoms))
    assert 0.1 < np.mean(verdicts) < 0.9


def by_enumeration(numbers: np.ndarray, counts: np.ndarray) -> bool:
    """Every product of states, with what SMACT 2.2.1 does where an electronegativity is missing."""
    order = np.argsort(numbers)
    elements = [smact.Element(SYMBOLS[z]) for z in numbers[order]]
    if len(elements) == 1 or all(e.symbol in smact.metals for e in elements):
        return True
    for states in itertools.product(*(e.oxidation_states_smact14 or [] for e in elements)):
        if np.dot(states, counts[order]) == 0 and passes(
            states, [e.pauling_eneg for e in elements]
        ):
            return True
    return False


def passes(states: tuple[int, ...], electronegativity: list[float | None]) -> bool:
    pairs = itertools.combinations(zip(states, electronegativity, strict=True), 2)
    for (s, x), (t, y) in pairs:
        if s * t < 0 and (x is None or y is None):
            return True  # the TypeError that counts as passing
        if x is None or y is None:
            return False
        if (s > 0 > t and x >= y) or (s < 0 < t and x <= y):
            return False
    return True


def test_missing_electronegativities_as_smact_2_2_1_took_them() -> None:
    verdicts = []
    rng = np.random.default_rng(1)
    for others, counts in drawn(300, [1, 3, 6, 7, 8, 9, 16, 26, 32, 56, 78], most=3):
        unknown = rng.choice([61, 86], rng.integers(1, 3), replace=False)
        numbers = np.concatenate([others, unknown])
        amounts = np.concatenate([counts, rng.integers(1, 5, len(unknown))])
        verdict = by_enumeration(numbers, amounts)
        assert published_rule(np.repeat(numbers, amounts)) == verdict, formula(numbers, amounts)
        verdicts.append(verdict)
    assert 0.1 < np.mean(verdicts) < 0.9


@pytest.mark.parametrize(
    "atoms, valid",
    [([11, 17], True), ([11, 11, 17], False), ([26, 28, 29], True), ([6], True), ([2, 8], False)],
    ids=["NaCl", "Na2Cl", "an alloy", "one element", "a noble gas"],
)
def test_known_verdicts(atoms: list[int], valid: bool) -> None:
    assert published_rule(atoms) is valid


def by_sums(numbers: list[int], counts: np.ndarray) -> bool:
    """Sets of charges for every cut in electronegativity: slower, and nothing shared."""
    elements = [smact.Element(SYMBOLS[z]) for z in numbers]
    for limit in sorted({e.pauling_eneg for e in elements}):
        sums = {0}
        for element, count in zip(elements, counts, strict=True):
            sign = 1 if element.pauling_eneg <= limit else -1
            states = [s for s in element.oxidation_states_smact14 or [] if s * sign >= 0]
            sums = {total + int(count) * s for total in sums for s in states}
        if 0 in sums:
            return True
    return False


@pytest.mark.timeout(120)
def test_twenty_elements_need_no_enumeration() -> None:
    """Of 2e11 products, which would never end."""
    elements = [z for z in range(1, 60) if SYMBOLS[z] not in UNKNOWN][:20]
    verdicts = []
    for seed in range(60):
        counts = np.random.default_rng(seed).integers(1, 9, 20)
        counts[0] = 1  # so that they have no common divisor
        verdicts.append(published_rule(np.repeat(elements, counts)))
        assert verdicts[-1] == by_sums(elements, counts)
    assert 0 < np.mean(verdicts) < 1
