"""The embedded datasets: shipped files, resumable build, the model against experiment."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher

from cdvae_core import structures
from cdvae_core.data.cache import open_split
from cdvae_core.data.embedded import build, mp_like, perov_like, references, shards
from cdvae_core.data.embedded.summary import markdown, summary
from cdvae_core.data.embedded.table import (
    METADATA_KEY,
    Selection,
    split_names,
    to_structure,
    write_table,
)
from cdvae_core.data.preprocess import crystal_nn_edges
from cdvae_core.errors import DatasetError

FOLDER = Path(build.__file__).parent
NAMES = ("perov_like", "mp_like")
COLUMNS = {
    "id", "split", "formula", "numbers", "lengths", "angles", "frac_coords",
    "formation_energy_per_atom",
}  # fmt: skip
needs_chgnet = pytest.mark.skipif(
    importlib.util.find_spec("chgnet") is None,
    reason='CHGNet is not installed: pip install "cdvae[stability]"',
)


@pytest.fixture(scope="module", params=NAMES)
def shipped(request):
    table = pq.read_table(FOLDER / f"{request.param}.parquet")
    return request.param, table, table.to_pylist()


# --- the shipped files ---------------------------------------------------------------------------


def test_shipped_columns_and_sizes(shipped):
    name, table, rows = shipped
    assert set(table.column_names) >= COLUMNS
    assert ("kind" if name == "perov_like" else "prototype") in table.column_names
    assert len(rows) == build.RECIPES[name].SIZE
    for row in rows:
        assert len(row["lengths"]) == len(row["angles"]) == 3
        assert len(row["frac_coords"]) == 3 * len(row["numbers"])
    assert (FOLDER / f"{name}.parquet").stat().st_size < 2e6


def test_shipped_splits_are_disjoint_and_60_20_20(shipped):
    name, _, rows = shipped
    size = len(rows)
    assert len({row["id"] for row in rows}) == size
    share = Counter(row["split"] for row in rows)
    assert share == pytest.approx(
        {"train": 0.6 * size, "val": 0.2 * size, "test": 0.2 * size}, abs=1
    )
    # one composition of perov_like is one crystal, so that no split knows another's
    if name == "perov_like":
        assert len({row["formula"] for row in rows}) == size


def test_shipped_caches_hold_the_same_crystals(shipped):
    """What training reads (graphs included) is what the Parquet file says."""
    name, _, rows = shipped
    for split in ("train", "val", "test"):
        cached = open_split(name, split)
        own = [row for row in rows if row["split"] == split]
        assert cached.ids == [row["id"] for row in own]
        energies = [row["formation_energy_per_atom"] for row in own]
        found = cached.properties["formation_energy_per_atom"]
        np.testing.assert_allclose(found, energies, atol=1e-5)
        for i, row in enumerate(own):
            crystal, structure = cached.crystal(i), to_structure(row)
            assert sorted(crystal.atomic_numbers) == sorted(row["numbers"])
            np.testing.assert_allclose(crystal.volume, structure.volume, rtol=1e-4)
            if i % 40 == 0:
                assert StructureMatcher(stol=0.01, ltol=0.01, angle_tol=0.1).fit(
                    structures.to_structure(crystal), structure
                )


def test_shipped_graphs_are_those_of_crystalnn(shipped):
    name, _, _ = shipped
    cached = open_split(name, "test")
    for i in range(0, len(cached), len(cached) // 12):
        source, target, image = crystal_nn_edges(cached.crystal(i))
        graph = cached.batch([i], None).graph
        kept = torch.column_stack([graph.source, graph.target, graph.image]).tolist()
        assert sorted(kept) == sorted(np.column_stack([source, target, image]).tolist())


def test_shipped_report_counts_every_candidate(shipped):
    name, table, rows = shipped
    report = json.loads(table.schema.metadata[METADATA_KEY])
    assert report["name"] == name and report["kept"] == len(rows)
    assert report["tried"] == report["kept"] + report["duplicates"] + sum(
        report["failures"].values()
    )
    assert report["tools"]["chgnet"] == "0.4.2"


def test_the_data_card_says_what_is_in_the_file(shipped):
    name, table, _ = shipped
    card = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    assert markdown(summary(FOLDER / f"{name}.parquet")) in card
    assert f"\n{table.num_rows:,} " in card


def test_shipped_crystals_are_crystals(shipped):
    """No pair below 1 Å, Niggli-reduced cells, plausible density and energy, known elements."""
    name, _, rows = shipped
    known = references.load()
    for row in rows:
        structure = to_structure(row)
        assert {element.symbol for element in structure.composition} <= set(known)
        assert len(structure) == 5 if name == "perov_like" else len(structure) <= 12
        distances = structure.distance_matrix[np.triu_indices(len(structure), 1)]
        assert min([*distances, *structure.lattice.abc]) > 1.0
        assert 5.0 < structure.volume / len(structure) < 120.0
        assert -5.5 < row["formation_energy_per_atom"] < 4.5
        assert all(0.0 <= x < 1.0 for x in row["frac_coords"])


def test_shipped_cells_are_niggli_reduced(shipped):
    _, _, rows = shipped
    for row in rows[:: len(rows) // 200]:
        lattice = to_structure(row).lattice
        reduced = lattice.get_niggli_reduced_lattice()
        np.testing.assert_allclose(sorted(lattice.abc), sorted(reduced.abc), rtol=1e-4)


def test_perov_like_is_cubic_and_half_displaced():
    rows = pq.read_table(FOLDER / "perov_like.parquet").to_pylist()
    kinds = Counter(row["kind"] for row in rows)
    assert abs(kinds["ideal"] - kinds["displaced"]) < 0.05 * len(rows)
    for row in rows:
        assert np.ptp(row["lengths"]) < 1e-3 * row["lengths"][0]
        assert np.allclose(row["angles"], 90.0, atol=1e-3)
        offset = (np.reshape(row["frac_coords"], (5, 3)) * 2.0) % 1.0
        at_site = np.minimum(offset, 1.0 - offset).max(axis=0) < 1e-5
        assert at_site.sum() == 3 if row["kind"] == "ideal" else at_site.sum() >= 2


# --- what needs no model -------------------------------------------------------------------------


def test_candidates_follow_the_seed():
    first, again, other = (perov_like.candidates(seed) for seed in (0, 0, 1))
    assert first == again != other
    assert len(set(first)) == len(first) == 52 * 52 * 7
    kinds = Counter(candidate.kind for candidate in first)
    assert kinds["ideal"] == kinds["displaced"]


def test_mp_like_candidates_keep_their_groups(monkeypatch):
    monkeypatch.setattr(mp_like, "DRAWS", 300)
    candidates = mp_like.candidates(0)
    assert candidates == mp_like.candidates(0) != mp_like.candidates(1)
    assert len(set(candidates)) == len(candidates) > 150
    for candidate in candidates:
        original = mp_like.prototypes()[candidate.prototype][1]
        for site, symbol in zip(original, candidate.symbols, strict=True):
            assert symbol in mp_like.GROUPS[site.specie.group].split()


def test_every_element_has_a_reference():
    assert set(references.load()) == set(references.elements())


def test_split_names():
    names = split_names(50, seed=3)
    assert Counter(names) == {"train": 30, "val": 10, "test": 10}
    assert names == split_names(50, seed=3) != split_names(50, seed=4)
    assert split_names(33, seed=3) == names[:33]  # a longer build moves no crystal


class Killed(Exception):
    """Stands for whatever ends a build."""


def test_a_killed_build_goes_on_and_loses_one_shard_at_most(tmp_path):
    calls = []

    def compute(index: int) -> dict:
        calls.append(index)
        if index == 25 and calls.count(25) == 1:
            raise Killed
        return {"index": index, "record": {"value": index}}

    with ThreadPoolExecutor(1) as executor:
        with pytest.raises(Killed):
            list(shards.complete(compute, tmp_path, 42, executor, in_flight=1))
        assert not list(tmp_path.glob("*.tmp"))
        kept = [entry for shard in shards.read_shards(tmp_path) for entry in shard]
        assert [entry["index"] for entry in kept] == list(range(20))
        list(shards.complete(compute, tmp_path, 42, executor, in_flight=2))
    entries = [entry for shard in shards.read_shards(tmp_path) for entry in shard]
    assert [entry["index"] for entry in entries] == list(range(42))
    assert all(calls.count(index) == 1 for index in range(20))


def test_shards_do_not_depend_on_the_number_of_workers(tmp_path):
    def compute(index: int) -> dict:
        return {"index": index, "record": {"value": np.random.default_rng([7, index]).random()}}

    texts = []
    for workers in (1, 3):
        folder = tmp_path / str(workers)
        folder.mkdir()
        with ThreadPoolExecutor(workers) as executor:
            list(shards.complete(compute, folder, 35, executor, in_flight=2 * workers))
        texts.append([path.read_text() for path in sorted(folder.iterdir())])
    assert texts[0] == texts[1]


def record(length: float, numbers: tuple[int, int] = (55, 17)) -> dict:
    return {
        "numbers": list(numbers),
        "lengths": [length] * 3,
        "angles": [90.0] * 3,
        "frac_coords": [0.0, 0.0, 0.0, 0.5, 0.5, 0.5],
    }


def test_selection_leaves_duplicates_and_failures_out():
    selection = Selection(2)
    selection.add(
        [
            {"index": 0, "record": record(4.12)},
            {"index": 1, "reason": "isolated atoms", "detail": ""},
            {"index": 2, "record": record(4.15, (17, 55))},
            {"index": 3, "record": record(4.2, (55, 35))},
            {"index": 4, "record": record(4.3, (55, 53))},
        ]
    )
    assert selection.full and [r["candidate"] for r in selection.records] == [0, 3]
    assert selection.report() == {
        "tried": 4, "kept": 2, "duplicates": 1, "failures": {"isolated atoms": 1},
    }  # fmt: skip


def test_a_larger_build_goes_on_from_the_file_of_a_smaller_one(tmp_path):
    """The shipped file and the entries after it give what all entries in one go give."""
    entries = [
        {"index": 0, "record": record(4.1)},
        {"index": 1, "reason": "isolated atoms", "detail": ""},
        {"index": 2, "record": record(4.1, (17, 55))},  # the first one again
        {"index": 3, "record": record(4.2, (55, 35))},
        {"index": 4, "record": record(4.2, (35, 55))},  # the one before, across the seam
        {"index": 5, "record": record(4.3, (55, 53))},
    ]
    whole, first = Selection(3), Selection(2)
    whole.add(entries)
    first.add(entries)
    report = {"name": "perov_like", "recipe_version": build.VERSION, "seed": 0}
    file = tmp_path / "perov_like.parquet"
    write_table(first.records, file, report | first.report())
    further = build.begin("perov_like", 0, 3, file)
    assert further.tried == first.tried == 4
    further.add(entries)
    assert further.report() == whole.report() and further.records == whole.records
    file_cut = tmp_path / "cut.parquet"
    file_cut.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DatasetError, match="damaged"):
        build.begin("perov_like", 0, 3, file_cut)
    for seed, size, why in ((1, 3, "another recipe or seed"), (0, 1, "holds 2 crystals")):
        with pytest.raises(DatasetError, match=why):  # never replaced by something else
            build.begin("perov_like", seed, size, file)


def test_shards_can_start_later(tmp_path):
    """A build that goes on from a file does not do again what the file holds."""
    calls = []

    def compute(index: int) -> dict:
        calls.append(index)
        return {"index": index, "record": {"value": index}}

    with ThreadPoolExecutor(1) as executor:
        list(shards.complete(compute, tmp_path, 35, executor, in_flight=2, start=2))
    assert sorted(calls) == list(range(20, 35))
    assert list(shards.read_shards(tmp_path)) == []  # none before the first missing one
    read = [entry["index"] for shard in shards.read_shards(tmp_path, start=2) for entry in shard]
    assert read == list(range(20, 35))


def test_bad_requests_get_one_sentence(tmp_path):
    with pytest.raises(DatasetError, match="no recipe for 'perov_6'"):
        build.build("perov_6", tmp_path)
    with pytest.raises(DatasetError, match="limit is 0"):
        build.build("perov_like", tmp_path, limit=0)


def test_without_chgnet_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "chgnet.model", None)
    with pytest.raises(DatasetError, match=r"cdvae\[stability\]"):
        build.build("perov_like", tmp_path, limit=1)


# --- with the model ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def calculator():
    from cdvae_core.data.embedded.calculator import load_calculator

    return load_calculator()


@needs_chgnet
@pytest.mark.filterwarnings("ignore")
def test_a_candidate_gives_the_same_bits_again():
    index = next(i for i, c in enumerate(perov_like.candidates(0)) if c.kind == "displaced")
    first = build.relax_candidate("perov_like", 0, index)
    build.relax_candidate("perov_like", 0, index + 1)
    assert "record" in first
    assert first == build.relax_candidate("perov_like", 0, index)


@needs_chgnet
@pytest.mark.filterwarnings("ignore")
def test_calculator_agrees_with_chgnets_own(calculator):
    """One backward pass gives what CHGNet's two give, and the forces are the energy's slope."""
    from ase.units import GPa
    from pymatgen.io.ase import AseAtomsAdaptor

    from cdvae_core.data.embedded.calculator import load_model

    atoms = perov_like.ideal_perovskite("Sr", "Ti", "O3")
    atoms.rattle(0.05, rng=np.random.default_rng(0))
    atoms.calc = calculator
    own = load_model().predict_structure(AseAtomsAdaptor.get_structure(atoms), task="efs")
    assert atoms.get_potential_energy() == pytest.approx(5 * own["e"], abs=1e-4)
    np.testing.assert_allclose(atoms.get_forces(), own["f"], atol=1e-3)
    np.testing.assert_allclose(atoms.get_stress(voigt=False) / GPa, own["s"], atol=1e-2)


@needs_chgnet
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_short_build_is_resumable_and_deterministic(name, tmp_path):
    """Twelve crystals, then seventeen going on from them, equal to seventeen in one go.

    Gone on from the shards that lie in the work folder, and from the finished file alone.
    """
    out, work = tmp_path / "out", tmp_path / "a"
    assert pq.read_table(build.build(name, out, limit=12, workers=2, work=work)).num_rows == 12
    kept = {p.stat().st_mtime_ns for p in build.work_folder(name, 0, work).iterdir()}
    shards_used = build.build(name, tmp_path / "r", limit=17, workers=1, work=work)
    assert kept <= {p.stat().st_mtime_ns for p in build.work_folder(name, 0, work).iterdir()}
    file_used = build.build(name, out, limit=17, workers=2, work=tmp_path / "b")
    fresh = build.build(name, tmp_path / "f", limit=17, workers=2, work=tmp_path / "c")
    whole = pq.read_table(fresh)
    assert pq.read_table(shards_used).equals(whole) and pq.read_table(file_used).equals(whole)


@needs_chgnet
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_model_against_experiment():
    """Lattice constants within 3 %, formation energies within 0.3 eV/atom, and small on average."""
    from cdvae_core.data.embedded.sanity import compare

    lengths, formation = [], []
    for known, length, energy in compare():
        lengths.append(length / known.lattice_constant - 1.0)
        formation.append(energy - known.formation_energy)
        assert abs(lengths[-1]) < 0.03, known.formula
        assert not abs(formation[-1]) > 0.3, known.formula
    assert np.mean(np.abs(lengths)) < 0.015
    assert np.nanmean(np.abs(formation)) < 0.12


@needs_chgnet
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_implausible_crystals_come_out_unstable(calculator):
    candidate = perov_like.Candidate("Au", "Pt", "N3", "ideal")
    made = perov_like.relax(candidate, np.random.default_rng(0), calculator, references.load())
    assert made["formation_energy_per_atom"] > 1.0


@needs_chgnet
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("symbol", ["Ti", "S", "O"])
def test_references_can_be_remade(symbol):
    assert references.lowest(symbol)["energy"] == pytest.approx(references.load()[symbol], abs=2e-3)
