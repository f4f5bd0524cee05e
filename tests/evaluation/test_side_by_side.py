"""Reports side by side: which noise floors stand beside them."""

from __future__ import annotations

import pytest

from cdvae_core.evaluation import compare
from cdvae_core.evaluation.report import Report, noise_floors


def report(crystals: int, floor: float, reference: str = "perov_like:test") -> Report:
    counts = {"crystals": crystals, "reference": 100}
    meta = {"reference": reference, "cutoffs": "perov_5"}
    return Report("generation", "made", {"cov_recall": 0.1}, {"cov_recall": floor},
                  counts, counts, meta)  # fmt: skip


@pytest.mark.parametrize("second, floors", [(100, ["90.00 %"]), (50, ["90.00 %", "80.00 %"])])
def test_a_floor_for_each_number_of_crystals(second: int, floors: list[str]) -> None:
    columns = [("one", report(100, 0.9)), ("other", report(second, 0.9 if second == 100 else 0.8))]
    table = compare.table(columns, [])
    [line] = [line for line in table.splitlines() if line.startswith("COV-R")]
    assert line.replace("10.00 %", "").split("  ")[-1].strip() == floors[-1]
    assert sum(line.count(value) for value in floors) == len(floors)
    assert ("over 50 crystals" in table) is (len(floors) == 2)


def test_floors_of_two_references_are_two() -> None:
    columns = [("one", report(100, 0.9)), ("other", report(100, 0.8, "perov_5:test"))]
    assert [head for head, _ in noise_floors(columns)] == [
        "noise floor, perov_like:test",
        "noise floor, perov_5:test",
    ]
