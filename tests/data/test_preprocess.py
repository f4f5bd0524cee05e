"""Niggli cells, CrystalNN edges, resuming, and reports of what cannot be used."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from toys import cif_text

import cdvae_core.data.preprocess as preprocess
from cdvae_core.crystal import Crystal
from cdvae_core.data.cache import read_split
from cdvae_core.data.custom import Entry, read_table
from cdvae_core.data.preprocess import crystal_nn_edges, prepare, prepare_split
from cdvae_core.errors import DatasetError, StructureError


def as_set(edges: tuple, shift: np.ndarray) -> set[tuple[int, ...]]:
    """Edges as (source, target, image), images counted from coordinates moved by `shift`."""
    source, target, image = (np.asarray(x) for x in edges)
    image = image - shift[source] + shift[target]
    return set(map(tuple, np.column_stack([source, target, image]).tolist()))


@pytest.fixture(scope="module")
def golden(shared: Path) -> list[dict]:
    path = shared / "golden" / "official_property" / "perovskite.json.gz"
    return json.loads(gzip.decompress(path.read_bytes()))["crystals"]


def test_edges_equal_the_published_ones(golden: list[dict]) -> None:
    for case in golden:
        cell = case["niggli"]
        coords = np.array(cell["frac_coords"])
        crystal = Crystal.from_parameters(
            cell["lengths"], cell["angles"], coords, cell["atomic_numbers"]
        )
        shift = np.round(coords - crystal.frac_coords).astype(int)
        expected = as_set((*np.transpose(case["edges"]), case["images"]), shift * 0)
        assert as_set(crystal_nn_edges(crystal), shift) == expected, case["material_id"]


def test_cells_and_edges_from_the_cif_equal_the_published_ones(
    golden: list[dict], shared: Path
) -> None:
    table = {e.id: e for e in read_table(shared / "data" / "perov_5" / "test.parquet")}
    for case in golden[:40]:
        crystal, edges = prepare(table[case["material_id"]])
        cell = case["niggli"]
        difference = np.array(cell["frac_coords"]) - crystal.frac_coords
        shift = np.round(difference).astype(int)
        np.testing.assert_allclose(difference, shift, atol=1e-12)
        np.testing.assert_allclose(crystal.lengths, cell["lengths"], rtol=1e-12)
        expected = as_set((*np.transpose(case["edges"]), case["images"]), shift * 0)
        assert as_set(edges, shift) == expected


def test_edges_come_in_pairs_sorted_by_target(entries) -> None:
    for entry in entries(12):
        crystal, (source, target, image) = prepare(entry)
        assert (np.diff(target) >= 0).all()
        assert set(target.tolist()) == set(range(crystal.num_atoms))
        forward = as_set((source, target, image), np.zeros((4, 3), int))
        backward = as_set((target, source, -image), np.zeros((4, 3), int))
        assert forward == backward


def test_niggli_cell_keeps_the_crystal(entries) -> None:
    for entry in entries(12):
        crystal, _ = prepare(entry)
        given = entry.content
        assert crystal.volume == pytest.approx(given.volume, rel=1e-9)
        assert sorted(crystal.atomic_numbers) == sorted(given.atomic_numbers)
        assert crystal.lengths.max() <= given.lengths.max() + 1e-9


def test_round_trip_through_the_cache(tmp_path: Path, entries) -> None:
    given = entries(70)  # two shards
    info = prepare_split(given, tmp_path, "toy", "train", progress=False)
    split = read_split(tmp_path / "toy-train.safetensors")
    assert split.fingerprint == info.fingerprint
    assert split.ids == [e.id for e in given]
    assert [p.name for p in tmp_path.iterdir()] == ["toy-train.safetensors"]
    np.testing.assert_array_equal(
        split.properties["energy"], [e.properties["energy"] for e in given]
    )
    for i in (0, 5, 64, 69):
        crystal, (source, target, image) = prepare(given[i])
        kept = split.crystal(i)
        np.testing.assert_array_equal(kept.frac_coords, crystal.frac_coords)
        np.testing.assert_array_equal(kept.lattice, crystal.lattice)
        np.testing.assert_array_equal(kept.atomic_numbers, crystal.atomic_numbers)
        graph = split.batch([i]).graph
        np.testing.assert_array_equal(graph.source.numpy(), source)
        np.testing.assert_array_equal(graph.target.numpy(), target)
        np.testing.assert_array_equal(graph.image.numpy(), image)


def test_a_killed_build_goes_on_where_it_stopped(tmp_path: Path, entries, monkeypatch) -> None:
    monkeypatch.setattr(preprocess, "SHARD_SIZE", 4)
    given = entries(20)
    whole = prepare_split(given, tmp_path / "whole", "toy", "train", progress=False)

    calls: list[str] = []
    work = preprocess.prepare

    def counted(entry: Entry):
        calls.append(entry.id)
        if len(calls) == 18:
            raise KeyboardInterrupt
        return work(entry)

    monkeypatch.setattr(preprocess, "prepare", counted)
    with pytest.raises(KeyboardInterrupt):
        prepare_split(given, tmp_path / "cut", "toy", "train", progress=False)
    assert not (tmp_path / "cut" / "toy-train.safetensors").exists()
    assert len(list((tmp_path / "cut" / "toy-train.parts").iterdir())) == 4  # 16 of 20 are kept
    calls.clear()
    calls += ["never again"] * 20
    info = prepare_split(given, tmp_path / "cut", "toy", "train", progress=False)
    assert calls[20:] == ["c-16", "c-17", "c-18", "c-19"]
    assert info.fingerprint == whole.fingerprint
    assert not (tmp_path / "cut" / "toy-train.parts").exists()


def test_a_damaged_shard_is_made_again(tmp_path: Path, entries, monkeypatch, caplog) -> None:
    monkeypatch.setattr(preprocess, "SHARD_SIZE", 4)
    given = entries(8)
    whole = prepare_split(given, tmp_path / "whole", "toy", "train", progress=False)
    monkeypatch.setattr(preprocess, "_merge", lambda shards, path, info, parts: info)
    prepare_split(given, tmp_path / "cut", "toy", "train", progress=False)
    monkeypatch.undo()
    shard = tmp_path / "cut" / "toy-train.parts" / "000001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-8] + b"\1" * 8)
    monkeypatch.setattr(preprocess, "SHARD_SIZE", 4)
    info = prepare_split(given, tmp_path / "cut", "toy", "train", progress=False)
    assert info.fingerprint == whole.fingerprint
    assert "000001.safetensors" in caplog.text


def test_nothing_is_done_twice_and_changes_are_noticed(
    tmp_path: Path, entries, monkeypatch
) -> None:
    given = entries(5)
    first = prepare_split(given, tmp_path, "toy", "train", progress=False)

    with monkeypatch.context() as patch:
        patch.setattr(preprocess, "prepare", lambda _: pytest.fail("already prepared"))
        assert prepare_split(given, tmp_path, "toy", "train", progress=False) == first
    changed = [*given[:4], Entry("c-4", given[4].content, {"energy": 7.0})]
    second = prepare_split(changed, tmp_path, "toy", "train", progress=False)
    assert second.fingerprint != first.fingerprint
    noted = prepare_split(given, tmp_path, "toy", "train", notes=["half"], progress=False)
    assert noted.fingerprint != first.fingerprint
    assert noted.notes == ("half",)


def test_skips_are_reported_by_name_and_reason(tmp_path: Path, entries) -> None:
    bad = {
        "empty": "",
        "garbage": "no crystal here",
        "flat": cif_text(c=0),
        "nan": cif_text("Cs Cs0 1 nan 0 0 1"),
        "element": cif_text("Xx Xx0 1 0 0 0 1"),
        "atoms": StructureError("made to fail"),
    }
    given = [Entry(name, content, {"energy": 0.0}) for name, content in bad.items()]
    given[3:3] = entries(3)
    info = prepare_split(given, tmp_path, "toy", "train", progress=False)
    assert read_split(tmp_path / "toy-train.safetensors").ids == ["c-0", "c-1", "c-2"]
    reasons = {s.id: s.reason for s in info.skipped}
    assert list(reasons) == list(bad)
    for name, word in {
        "empty": "empty",
        "garbage": "no cell",
        "flat": "no volume",
        "nan": "not a number",
        "element": "unknown element 'Xx'",
        "atoms": "made to fail",
    }.items():
        assert word in reasons[name]


def test_a_failing_graph_is_reported(tmp_path: Path, entries, monkeypatch) -> None:
    class Failing:
        def get_all_nn_info(self, structure):
            raise ValueError("Qhull precision")

    monkeypatch.setattr(preprocess, "_crystal_nn", Failing)
    with pytest.raises(DatasetError, match=r"none of the 2 .* c-0: CrystalNN fails: Qhull"):
        prepare_split(entries(2), tmp_path, "toy", "train", progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_processes_give_the_same_file(tmp_path: Path, entries) -> None:
    given = entries(130)
    one = prepare_split(given, tmp_path / "one", "toy", "train", workers=1, progress=False)
    two = prepare_split(given, tmp_path / "two", "toy", "train", workers=2, progress=False)
    assert one == two
    files = [tmp_path / n / "toy-train.safetensors" for n in ("one", "two")]
    assert files[0].read_bytes() == files[1].read_bytes()
