"""What ships with a checkpoint: its pictures are of what they say."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from ase.io import read

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))
sys.path.insert(0, str(Path(__file__).parents[2] / "checkpoints"))
from examples import crystal, perovskites, prototypes, small_model
from failures import failures, kind, sentence
from publish import (
    check_kept,
    check_same_weights,
    commands,
    failed,
    is_measured,
    pairs,
    ship_reports,
)

from cdvae_core import checkpoint
from cdvae_core.decode import Decoded, Folder, settings


def test_each_reconstruction_stands_beside_its_own_original(tmp_path: Path) -> None:
    original = perovskites(6)
    folder = Folder(tmp_path / "out", settings(Path("model"), 0))
    folder.reference(original, [f"id-{i}" for i in range(6)])
    folder.add(
        [
            Decoded(f"test-{i}-0", None if i in (0, 2) else one, "" if i else "no volume")
            for i, one in enumerate(original)
        ]
    )
    found = pairs(folder.path, read(folder.path / "crystals.extxyz", ":3"))
    assert [one.info["name"] for one in found] == [
        "id-1", "test-1-0", "id-3", "test-3-0", "id-4", "test-4-0",
    ]  # fmt: skip
    for one, other in zip(found[::2], found[1::2], strict=True):
        assert np.allclose(one.get_positions(), other.get_positions(), atol=1e-5)


def test_a_system_that_reconstructs_nothing_has_no_pictures(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "out", settings(Path("model"), 0))
    folder.reference(perovskites(2), ["a", "b"])
    folder.add([Decoded(f"test-{i}-0", None, "no volume") for i in range(2)])
    assert pairs(folder.path, []) == []


def test_a_failure_is_of_one_kind(tmp_path: Path) -> None:
    true = prototypes()["perovskite"]
    sr, ti, *oxygen = true.atomic_numbers.tolist()
    swapped = crystal([ti, sr, *oxygen], true.frac_coords, true.lattice)
    other = crystal([sr, ti, *oxygen[:2], 9], true.frac_coords, true.lattice)
    apart = crystal(true.atomic_numbers, true.frac_coords * [[0.2, 0.3, 0.1]], true.lattice)
    found = [kind(one, true) for one in (swapped, other, apart)]
    assert found == ["exchanged", "composition", "sites"]
    folder = Folder(tmp_path / "out", settings(Path("model"), 0))
    folder.reference([true] * 4, list("abcd"))
    made = [true, swapped, other, None]
    folder.add([Decoded(f"test-{i}-0", one, "" if one else "flat") for i, one in enumerate(made)])
    count, missed, none = failures(folder.path)
    assert (count, [what for *_, what in missed], none) == (4, ["exchanged", "composition"], 1)
    assert "4 crystals" in (said := sentence(folder.path, count, missed, none))
    assert "3 do not match: 1 of another composition, 1 with elements in each other" in said


def test_what_is_kept_of_a_card_is_of_the_same_weights(tmp_path: Path) -> None:
    checkpoint.save(small_model(0), tmp_path / "run")
    for name, half in (("whole", False), ("half", True)):
        checkpoint.save(small_model(0), tmp_path / name, half)
        check_same_weights(tmp_path / "run", tmp_path / name)
    checkpoint.save(small_model(1), tmp_path / "other", half=True)
    with pytest.raises(SystemExit, match="other weights"):
        check_same_weights(tmp_path / "run", tmp_path / "other")


def test_a_card_keeps_what_it_has_and_needs_what_it_keeps() -> None:
    before = dict.fromkeys(commands("m", "perov_like", 9, 9, 9, 2, 99, True), "")
    check_kept(list(before), before, ["as_many"])
    fewer = commands("m", "perov_like", 9, 9, 9, 2, 0, True)
    with pytest.raises(SystemExit, match=r"would lose a command: .* as_many"):
        check_kept(fewer, before, ["guided", "in_flow"])
    with pytest.raises(SystemExit, match=r"no such command to be kept: .* as_many"):
        check_kept(list(before), dict.fromkeys(fewer, ""), ["guided"])


def test_a_card_is_of_one_flow() -> None:
    lines = commands("m", "perov_like", 9, 9, 9, 2, 99, True)
    before = dict.fromkeys(lines, "")
    check_kept(lines, before, ["cdvae prior", "generated", "as_many", "in_flow", "guided"])
    with pytest.raises(SystemExit, match=r"of the flow before: .* guided"):
        check_kept(lines, before, ["cdvae prior", "generated", "as_many", "in_flow"])


def test_the_section_on_failures_is_of_the_best_way(tmp_path: Path) -> None:
    """Where only another one was run, the old section stays."""
    lines = commands("m", "perov_like", 9, 9, 9, 2, 0, True)
    out = tmp_path / "m"
    out.mkdir()
    old = "## Where it fails\n\nOf the 4 crystals in `chosen` none match.\n\n"
    (out / "card.md").write_text(f"# m\n\n{old}## What it does\n")
    for way in ("exchanged", "chosen"):
        folder = Folder(tmp_path / way, settings(Path("model"), 0))
        folder.reference(perovskites(2), ["a", "b"])
        folder.add([Decoded(f"test-{i}-0", one) for i, one in enumerate(perovskites(2))])
        kept = failed(tmp_path, out, lines)
        assert kept == old if way == "exchanged" else "All 2 crystals of `chosen`" in kept


def test_what_is_measured_has_any_of_the_words() -> None:
    lines = commands("m", "perov_like", 9, 9, 9, 2, 0, True)
    anew = [line for line in lines if is_measured(line, ["cdvae prior", "guided"])]
    assert anew == [lines[6], *lines[-2:]]
    assert all(is_measured(line, []) for line in lines)


def test_one_element_has_none_to_exchange() -> None:
    lines = commands("m", "perov_like", 9, 9, 9, 2, 0, False)
    assert not [line for line in lines if "exchange" in line]


def test_a_report_goes_with_its_command(tmp_path: Path) -> None:
    folder = tmp_path / "out" / "reports"
    folder.mkdir(parents=True)
    for name in ("generation_many", "generation"):
        (folder / f"{name}.json").write_text("{}")
    lines = commands("m", "perov_like", 9, 9, 9, 2, 0, True)
    ship_reports(tmp_path, tmp_path / "out", lines, only=True)
    assert [one.name for one in folder.iterdir()] == ["generation.json"]


def test_a_card_says_how_long_its_flow_was_trained() -> None:
    lines = commands("m", "perov_like", 9, 9, 9, 2, 0, True, prior_steps=7)
    assert [one for one in lines if "prior checkpoints" in one] == [
        "cdvae prior checkpoints/m --steps 7"
    ]
