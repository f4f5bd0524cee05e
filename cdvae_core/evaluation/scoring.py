"""The paper's three tasks, scored: crystals and a reference in, figures and a table out.

Energies are those of the independent property network of the reference's dataset, or else of the
one that the cut-offs belong to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from pymatgen.core import Composition

from cdvae_core.crystal import SYMBOLS, Crystal
from cdvae_core.errors import ConfigError
from cdvae_core.evaluation.inputs import Broken, Crystals
from cdvae_core.evaluation.tasks import to_measurement
from cdvae_core.evaluation.work import Crew, Store, run
from cdvae_core.metrics import diversity, optimisation
from cdvae_core.metrics.coverage import CUTOFFS, coverage
from cdvae_core.metrics.distributions import distance, draw_valid, earth_movers, symmetry
from cdvae_core.metrics.measure import Measurement
from cdvae_core.metrics.reconstruction import Reconstruction
from cdvae_core.metrics.stability import POTENTIALS, STABLE, Hull
from cdvae_core.metrics.structure_rule import CLOSEST


@dataclass
class Scored:
    """What is to be reported of one set of crystals.

    Attributes:
        metrics: figures by name; the published names where the paper has them.
        counts: how many crystals each figure is over.
        table: one row for each crystal.
        measured, reference: of the crystals and of what they are compared with.
        notes: what could not be done.
    """

    metrics: dict[str, float]
    counts: dict[str, int]
    table: list[dict[str, Any]]
    measured: Sequence[Measurement]
    reference: Sequence[Measurement]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Judge:
    """How crystals are scored.

    Attributes:
        crew: who does the work.
        cutoffs: perov_5, carbon_24 or mp_20: whose cut-offs of coverage.
        seed: of the draws.
        network: whose independent property network, see `metrics.predictor`.

    Raises:
        ConfigError: no such cut-offs.
    """

    crew: Crew
    cutoffs: str
    seed: int
    network: str

    def __post_init__(self) -> None:
        if self.cutoffs not in CUTOFFS:
            choices = ", ".join(CUTOFFS)
            raise ConfigError(f"no cut-offs '{self.cutoffs}': choose one of {choices}")

    def measure(self, crystals: Crystals, store: Store) -> list[Measurement]:
        """Each crystal, those that are none or take too long included."""
        good = {i: item for i, item in enumerate(crystals.items) if isinstance(item, Crystal)}
        label = f"measuring {crystals.name}"
        answers = run("measurement", [(item,) for item in good.values()], store, self.crew, label)
        found = {}
        for (place, crystal), answer in zip(good.items(), answers, strict=True):
            numbers = crystal.atomic_numbers.tolist()
            found[place] = (
                to_measurement(answer["value"])
                if "value" in answer
                else Measurement.of_no_crystal(numbers, answer["failure"])
            )
        for place, item in enumerate(crystals.items):
            if isinstance(item, Broken):
                found[place] = Measurement.of_no_crystal(item.atomic_numbers, item.reason)
        return [found[i] for i in range(len(crystals))]

    def energies(self, crystals: Crystals, places: Sequence[int], store: Store) -> np.ndarray:
        """`[places]`, in the property's unit, NaN where the network has none."""
        arguments = [(self.network, crystals.items[i]) for i in places]
        answers = run("energy", arguments, store, self.crew, f"energies of {crystals.name}")
        return np.array([answer.get("value", np.nan) for answer in answers], dtype=float)


def reconstruction(
    judge: Judge, given: Crystals, reference: Crystals, stores: tuple[Store, Store]
) -> Scored:
    """Pair by pair: each `given.tries` crystals against one of the reference.

    Raises:
        ConfigError: the numbers of crystals do not fit.
    """
    if len(given) != len(reference) * given.tries:
        raise ConfigError(
            f"{given.name} has {len(given)} crystals and {reference.name} {len(reference)}: a "
            "reconstruction is compared pair by pair"
        )
    measured = judge.measure(given, stores[0])
    true = [item for item in reference.items for _ in range(given.tries)]
    pairs = [
        i for i, (one, other) in enumerate(zip(given.items, true, strict=True))
        if isinstance(one, Crystal) and isinstance(other, Crystal)
    ]  # fmt: skip
    arguments = [(given.items[i], true[i]) for i in pairs]
    answers = run("rmse", arguments, stores[0], judge.crew, f"matching {given.name}")
    rmse = np.full(len(given), np.nan)
    rmse[pairs] = [answer.get("value", np.nan) for answer in answers]
    valid = np.array([one.valid for one in measured])
    shape = (len(reference), given.tries)
    result = Reconstruction(rmse.reshape(shape), valid.reshape(shape))
    table = _rows(given, measured)
    for row, value in zip(table, rmse, strict=True):
        row["rmse"] = float(value)
    return Scored(
        result.metrics() | _validity(measured),
        {"crystals": len(given), "reference": len(reference), "tries": given.tries},
        table,
        measured,
        judge.measure(reference, stores[1]),
    )


def generation(
    judge: Judge,
    given: Crystals,
    reference: Crystals,
    stores: tuple[Store, Store],
    training: Crystals | None = None,
) -> Scored:
    """Validity, coverage and distributions; unique and, given the training set, novel ones."""
    measured, known = judge.measure(given, stores[0]), judge.measure(reference, stores[1])
    sample = draw_valid(measured, judge.seed)
    chosen = [measured[i] for i in sample]
    usable = [one for one in known if np.isfinite(one.density)]
    metrics = _validity(measured)
    metrics |= coverage(measured, known, CUTOFFS[judge.cutoffs]).metrics()
    metrics |= earth_movers(chosen, usable) | symmetry(chosen, usable)
    counts = {"crystals": len(given), "reference": len(reference), "sample": len(sample)}
    table = _rows(given, measured)
    energies = judge.energies(given, sample, stores[0])
    places = [i for i, item in enumerate(reference.items) if isinstance(item, Crystal)]
    own = judge.energies(reference, places, stores[1])
    metrics["wdist_prop"] = distance(energies[np.isfinite(energies)], own[np.isfinite(own)])
    for place, value in zip(sample, energies, strict=True):
        table[place]["energy"] = float(value)
    metrics |= _diversity(judge, given, measured, sample, reference, known, training, stores[0])
    return Scored(metrics, counts, table, measured, known)


def optimised(
    judge: Judge,
    given: Crystals,
    starts: int,
    thresholds: tuple[float, ...],
    store: Store,
) -> Scored:
    """Success rates; crystals in the published order, all starts of a step one after the other.

    Raises:
        ConfigError: no whole number of steps.
    """
    measured = judge.measure(given, store)
    valid = np.array([one.valid for one in measured])
    places = np.flatnonzero(valid)
    energy = np.full(len(given), np.nan)
    energy[places] = judge.energies(given, places.tolist(), store)
    rates = optimisation.success_rates(energy, valid, starts, thresholds)
    table = _rows(given, measured)
    for place, row in enumerate(table):
        row |= {"start": place % starts, "step": place // starts, "energy": float(energy[place])}
    counts = {"crystals": len(given), "starts": starts}
    return Scored(rates | _validity(measured), counts, table, measured, [])


def stability(
    judge: Judge,
    given: Crystals,
    reference: Crystals,
    stores: tuple[Store, Store],
    potential: str,
    training: Crystals | None = None,
) -> Scored:
    """Relaxed energy above the reference's hull, and how far atoms move; by the potential."""
    crew, name = judge.crew, POTENTIALS[potential]
    measured = judge.measure(given, stores[0])
    places = [i for i, item in enumerate(given.items) if isinstance(item, Crystal)]
    arguments = [(potential, given.items[i]) for i in places]
    answers = run("relaxed", arguments, stores[0], crew, f"relaxing {given.name}")
    hull = _hull(judge, given, reference, stores[1], potential)
    above, moved = np.full((2, len(given)), np.nan)
    table = _rows(given, measured)
    for place, answer in zip(places, answers, strict=True):
        if "failure" in answer:
            table[place]["failures"] = answer["failure"]
            continue
        found = answer["value"]
        above[place] = hull.above(Composition(found["formula"]), found["energy"])
        moved[place] = found["rmsd"]
    stable = above <= STABLE
    for place, row in enumerate(table):
        row |= {"energy_above_hull": float(above[place]), "rmsd_relaxed": float(moved[place])}
    metrics = {
        "stable": _share(stable),
        "energy_above_hull": _mean(above),
        "rmsd_relaxed": _mean(moved),
        "relaxed": _share(np.isfinite(moved)),
    }
    if training is not None:
        new = _unique_and_new(judge, given, measured, places, training, stores[0])
        metrics["sun"] = _share([bool(stable[i]) and i in new for i in range(len(given))])
    notes = [
        f"All energies by {name}, not by DFT, which finds fewer stable crystals.",
        "The hull knows the reference and the elements alone; competing phases that the reference "
        "lacks make crystals look more stable than they are.",
    ]
    counts = {"crystals": len(given), "reference": len(reference)}
    return Scored(metrics, counts, table, measured, [], notes)


def _hull(judge: Judge, given: Crystals, reference: Crystals, store: Store, potential: str) -> Hull:
    """Of the reference's crystals as they are, and of the elements of the given ones."""
    known = [item for item in reference.items if isinstance(item, Crystal)]
    arguments = [(potential, item) for item in known]
    label = f"energies of {reference.name}"
    answers = run("potential_energy", arguments, store, judge.crew, label)
    numbers = {
        int(z) for item in given.items if isinstance(item, Crystal) for z in item.atomic_numbers
    }
    symbols = sorted(SYMBOLS[z] for z in numbers)
    slow = replace(judge.crew, timeout=max(600.0, judge.crew.timeout))
    named = [(potential, symbol) for symbol in symbols]
    elements = run("element_energy", named, store, slow, "energies of the elements")
    return Hull(
        [Composition(item.formula) for item in known],
        [answer.get("value", np.nan) for answer in answers],
        {
            s: answer["value"]
            for s, answer in zip(symbols, elements, strict=True)
            if "value" in answer
        },
    )


def _unique_and_new(
    judge: Judge,
    given: Crystals,
    measured: Sequence[Measurement],
    places: Sequence[int],
    training: Crystals,
    store: Store,
) -> set[int]:
    unique = _unique(judge, given, measured, places, store)
    formulas = [measured[i].formula for i in places]
    theirs = [_formula(item) for item in training.items]
    seen = _equal_to_any(
        judge, given.subset(places), formulas, training, theirs, store, "novel ones"
    )
    return {i for i, known in zip(places, seen, strict=True) if i in unique and not known}


def _validity(measured: Sequence[Measurement]) -> dict[str, float]:
    return {
        "comp_valid": _share([one.comp_valid for one in measured]),
        "struct_valid": _share([one.struct_valid for one in measured]),
        "valid": _share([one.valid for one in measured]),
        "comp_valid_current": _share([one.comp_valid_current for one in measured]),
        "image_clash": _share([one.shortest_image < CLOSEST for one in measured]),
    }


def _diversity(
    judge: Judge,
    given: Crystals,
    measured: Sequence[Measurement],
    sample: Sequence[int],
    reference: Crystals,
    known: Sequence[Measurement],
    training: Crystals | None,
    store: Store,
) -> dict[str, float]:
    """Over the sample of valid crystals: unique, novel, both; and METRe over all of them."""
    unique = _unique(judge, given, measured, sample, store)
    metrics = {"unique": len(unique) / len(sample) if sample else float("nan")}
    own, theirs = [one.formula for one in known], [one.formula for one in measured]
    found = _equal_to_any(judge, reference, own, given, theirs, store, "references found")
    metrics["metre"] = _share(found)
    if training is not None:
        formulas = [measured[i].formula for i in sample]
        formula_of = [_formula(item) for item in training.items]
        ours = given.subset(sample)
        seen = _equal_to_any(judge, ours, formulas, training, formula_of, store, "novel ones")
        novel = [not known_already for known_already in seen]
        metrics["novel"] = _share(novel)
        both = [place in unique and new for place, new in zip(sample, novel, strict=True)]
        metrics["unique_and_novel"] = _share(both)
    return metrics


def _unique(
    judge: Judge,
    given: Crystals,
    measured: Sequence[Measurement],
    places: Sequence[int],
    store: Store,
) -> set[int]:
    """Of these places, the first of each distinct crystal."""
    formulas = [measured[i].formula for i in places]
    groups = [[places[i] for i in group] for group in diversity.by_formula(formulas).values()]
    arguments = [([given.items[i] for i in group],) for group in groups]
    patient = replace(judge.crew, timeout=judge.crew.timeout * max(map(len, groups), default=1))
    answers = run("first_of_each", arguments, store, patient, "unique ones")
    return {
        group[i]
        for group, answer in zip(groups, answers, strict=True)
        for i in answer.get("value", [])
    }


def _equal_to_any(
    judge: Judge,
    crystals: Crystals,
    formulas: Sequence[str],
    others: Crystals,
    their_formulas: Sequence[str],
    store: Store,
    label: str,
) -> list[bool]:
    """Whether each crystal is the same as one of the others."""
    places = diversity.by_formula(their_formulas)
    asked: list[int] = []
    arguments: list[tuple[Crystal, list[Crystal]]] = []
    for formula, group in diversity.by_formula(formulas).items():
        alike = (others.items[j] for j in places.get(formula, []))
        near = [other for other in alike if isinstance(other, Crystal)]
        own = {i: item for i in group if isinstance(item := crystals.items[i], Crystal)}
        if own and near:
            asked += own
            few = diversity.candidates(list(own.values()), near)
            arguments += zip(own.values(), few, strict=True)
    result = [False] * len(crystals)
    for i, answer in zip(
        asked, run("equals_any", arguments, store, judge.crew, label), strict=True
    ):
        result[i] = bool(answer.get("value", False))
    return result


def _formula(item: Crystal | Broken) -> str:
    """As `Measurement.formula`, without measuring."""
    return Measurement.of_no_crystal(item.atomic_numbers, "").formula


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _share(flags: Sequence[bool] | np.ndarray) -> float:
    return float(np.mean(flags)) if len(flags) else float("nan")


def _rows(given: Crystals, measured: Sequence[Measurement]) -> list[dict[str, Any]]:
    rows = []
    for name, one in zip(given.ids, measured, strict=True):
        failures = "; ".join(f"{what}: {why}" for what, why in one.failures.items())
        rows.append({"id": name} | asdict(one) | {"valid": one.valid, "failures": failures})
    return rows
