"""What stands behind the pages that make crystals: uploads, judges, films, the library."""

from __future__ import annotations

import io
import json
import os
import random
import re
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch
from conftest import World

from app.services import export, film, generate, library, optimise, relaxing, reports, uploads
from app.services.decoding import Candidate
from app.services.judging import Judge, Verdict
from cdvae_core import CDVAE
from cdvae_core.crystal import Crystal
from cdvae_core.encode import encode_split
from cdvae_core.errors import OutputError, StructureError
from cdvae_core.metrics import stability
from cdvae_core.metrics.predictor import Predictor
from cdvae_core.metrics.stability import Relaxed
from cdvae_core.structures import to_cif

SITES = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])


def perovskite(length: float = 3.905, a: int = 38, b: int = 22) -> Crystal:
    return Crystal.from_parameters([length] * 3, [90.0] * 3, SITES, [a, b, 8, 8, 8])


def candidate(name: str, crystal: Crystal | None, guess: float = 0.0, **verdict) -> Candidate:
    said = {"structure_valid": True, "composition_valid": True, "prop": None, "novel": True}
    known = None if crystal is None else Verdict(**(said | verdict))
    return Candidate(name, np.zeros(16), crystal, "" if crystal else "no volume", guess, known)


@pytest.mark.skipif(not relaxing.installed(), reason="CHGNet is not installed")
def test_a_stretched_perovskite_relaxes() -> None:
    job = relaxing.start([("wide", perovskite(4.05)), ("tight", perovskite(3.8))])
    while job.running:
        job.wait(1)
        job.items()
    wide, tight = job.items()
    assert wide.after is not None and tight.after is not None
    assert wide.after.lengths[0] == pytest.approx(tight.after.lengths[0], abs=0.02)  # one minimum
    assert 3.85 < wide.after.lengths[0] < 4.0 and wide.groups == ("Pm-3m (221)",) * 2


def test_a_relaxation_that_is_stopped_leaves_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    def relax(crystal: Crystal, potential: str, each_step: Callable[[], None]) -> Relaxed:
        job_running.wait(5)
        try:
            each_step()
        except (ValueError, RuntimeError) as error:  # as a relaxation that went wrong
            raise StructureError("not relaxed") from error
        job.stop()
        return Relaxed(crystal, -1.0, 0.1)

    monkeypatch.setattr(stability, "check_potential", lambda name: None)
    monkeypatch.setattr(stability, "relax", relax)
    job_running = Event()
    job = relaxing.start([(name, perovskite(4.0)) for name in "abc"])
    job_running.set()
    assert job.wait(20) and job.status == "stopped"
    assert [one.name for one in job.items()] == ["a"]


def test_an_uploaded_cif_is_encoded_as_the_same_crystal_of_the_data(world: World) -> None:
    model, split = CDVAE.load(world.tiny), world.split("test")
    crystal, edges = uploads.parse(to_cif(split.crystal(0)).encode())
    z = uploads.encode(model, crystal, edges)
    torch.testing.assert_close(z, encode_split(model, split, [0])[0], rtol=1e-3, atol=1e-4)


def test_a_crystal_beyond_the_checkpoint_is_refused(world: World) -> None:
    from cdvae_core.structures import from_structure, to_structure

    large = from_structure(to_structure(perovskite()) * (2, 1, 1))
    crystal, edges = uploads.parse(to_cif(large).encode())
    with pytest.raises(StructureError, match="10 atoms, but the checkpoint was made for up to 5"):
        uploads.encode(CDVAE.load(world.tiny), crystal, edges)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"\xff\xfe\x00", "not text"),
        (b"<script>alert(1)</script>", "POSCAR"),
        (b"x" * 1_000_001, "1,000,001 bytes"),
    ],
)
def test_a_hostile_upload_is_one_sentence(content: bytes, says: str) -> None:
    with pytest.raises(StructureError, match=says) as caught:
        uploads.parse(content)
    assert "\n" not in str(caught.value) and "Traceback" not in str(caught.value)


def test_a_file_that_calls_itself_a_cif_is_told_of_as_one() -> None:
    with pytest.raises(StructureError) as raised:
        uploads.parse(b"not a crystal at all", "mine.CIF")
    assert "CIF" in str(raised.value) and "POSCAR" not in str(raised.value)


def test_a_slow_upload_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "SECONDS", 0.05)
    with pytest.raises(StructureError, match=r"longer than 0\.05 s"):
        uploads.parse(to_cif(perovskite()).encode())


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_hundred_damaged_uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a crystal or one sentence, and none leaves a file."""
    monkeypatch.chdir(tmp_path)
    good = to_cif(perovskite()).encode()
    rng = random.Random(0)

    def damaged() -> bytes:
        content = bytearray(good)
        for _ in range(rng.randint(1, 12)):
            place = rng.randrange(len(content))
            kind = rng.randrange(4)
            if kind == 0:
                content[place] = rng.randrange(256)
            elif kind == 1:
                del content[place : place + rng.randint(1, 60)]
            elif kind == 2:
                content[place:place] = rng.choice(
                    [b"\n", b"nan", b"1e999", b"'", b"loop_\n", b"\0"]
                )
            else:
                content[place:place] = content[: rng.randrange(len(content))]
        return bytes(content)

    def outcome(content: bytes) -> str:
        try:
            uploads.parse(content)
        except StructureError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(outcome, [damaged() for _ in range(200)]))
    assert any(said) and not all(said)
    assert not [text for text in said if "\n" in text or "Traceback" in text]
    assert list(tmp_path.iterdir()) == []


def test_a_judge_knows_its_data_and_a_new_crystal(world: World) -> None:
    split = world.split("train")
    judge = Judge(Predictor.load("perov_5"), split)
    seen = judge(split.crystal(0))
    assert seen.novel is False and seen.structure_valid and np.isfinite(seen.prop)
    new = judge(perovskite(3.9, 56, 26))
    assert new.novel is True
    assert Judge(None, None)(perovskite()).prop is None
    collided = perovskite()
    sites = collided.frac_coords.copy()
    sites[1] = 0.01
    wrong = judge(Crystal(collided.atomic_numbers, sites, collided.lattice))
    assert not wrong.structure_valid and not wrong.valid and wrong.prop is None


def test_equal_crystals_count_once() -> None:
    found = [
        candidate("a", perovskite()), candidate("b", perovskite(3.92)), candidate("c", None),
        candidate("d", perovskite(3.9, 56)), candidate("e", perovskite(3.9, 56), novel=False),
    ]  # fmt: skip
    unique = generate.firsts(found)
    assert unique == [0, 3]
    memory: dict[str, int] = {}
    assert generate.firsts(found[:2], memory) == [0]
    assert generate.firsts(found, memory) == [0, 3]
    stand = generate.tally(found, unique)
    assert (stand.count, stand.valid, stand.unique, stand.novel) == (5, 0.8, 0.4, 1.0)


def test_the_best_waypoint_is_valid_and_chosen_by_the_judge() -> None:
    way = [
        optimise.Waypoint(0, 10, candidate("a", perovskite(), guess=-9, prop=0.5)),
        optimise.Waypoint(0, 20, candidate("b", perovskite(), guess=-1, prop=0.1)),
        optimise.Waypoint(0, 30, candidate("c", perovskite(), prop=-5, composition_valid=False)),
        optimise.Waypoint(1, 10, candidate("d", perovskite(), prop=2.0)),
        optimise.Waypoint(2, 10, candidate("e", None)),
    ]
    best = optimise.best_of(way, [0.3, 1.0, 0.0], -1, 0.0)
    assert [b.waypoint.candidate.name for b in best] == ["b", "d"]
    assert [b.improved for b in best] == [True, False]
    assert optimise.success_rates(best, 3, (0.05, 0.1, 3.0)) == {
        "SR5": 0.0, "SR10": 1 / 3, "SR15": 2 / 3,
    }  # fmt: skip
    aimed = optimise.best_of(way, [0.3, 1.0, 0.0], 0, 0.45)
    assert aimed[0].waypoint.candidate.name == "a"


def test_downloads_hold_the_crystals() -> None:
    moved = Crystal(perovskite().atomic_numbers, SITES + 0.004 * np.eye(5, 3), perovskite().lattice)
    named = [("one", perovskite()), ("two", moved)]
    with zipfile.ZipFile(io.BytesIO(export.cif_zip(named))) as archive:
        assert archive.namelist() == ["one.cif", "two.cif"]
        assert "_cell_length_a" in archive.read("one.cif").decode()
    with zipfile.ZipFile(io.BytesIO(export.poscar_zip(named))) as archive:
        assert archive.namelist() == ["one.vasp", "two.vasp"]
    assert export.extxyz(named).count("Lattice=") == 2
    halves = 2 * export.symmetric(moved).frac_coords
    np.testing.assert_allclose(halves, halves.round(), atol=1e-6)


def test_a_film_is_one_file_without_addresses() -> None:
    data = {"label": "</script><b>x", "frames": []}
    page = film.film(data, "<Film>", "a & b")
    assert "&lt;Film&gt;" in page and "a &amp; b" in page
    script = page[page.rindex('<script type="module">') :]
    assert script.count("</script>") == 1
    assert "import " not in re.sub(r"//.*", "", script) and "\nexport " not in script
    assert not re.search(r"""(src|href)=["'](https?:)?//""", page)


def test_reconstruction_errors_find_their_points(tmp_path: Path) -> None:
    import pandas as pd

    sizes = {"train": 3, "test": 4}
    assert reports.reconstruction_errors(tmp_path, sizes) is None
    (tmp_path / "reports").mkdir()
    table = pd.DataFrame({"id": ["test-00001-0", "test-00003-0"], "rmse": [0.1, np.nan]})
    table.to_parquet(tmp_path / "reports" / "reconstruction.parquet")
    errors = reports.reconstruction_errors(tmp_path, sizes)
    assert errors[4] == 0.1 and np.isnan(np.delete(errors, 4)).all() and len(errors) == 7
    assert reports.reconstruction_errors(tmp_path, {"val": 5}) is None


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "deep" / "library.db"
    monkeypatch.setenv("CDVAE_LIBRARY", str(path))
    return path


def test_nothing_is_written_by_looking(shelf: Path) -> None:
    assert library.entries() == [] and not shelf.exists()


@pytest.fixture(params=["sqlite", "postgresql"])
def any_shelf(request: pytest.FixtureRequest, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "postgresql":
        pytest.importorskip("ase_db_backends", reason='needs pip install "cdvae[postgres]"')
        if not os.environ.get("CDVAE_TEST_POSTGRES"):
            pytest.skip("CDVAE_TEST_POSTGRES names no empty database")
        monkeypatch.setenv("CDVAE_LIBRARY", os.environ["CDVAE_TEST_POSTGRES"])


def test_an_entry_comes_back_whole(any_shelf: None) -> None:
    z = np.linspace(-1, 1, 16)
    number = library.save(
        perovskite(), title="Tausonite", page="generate", z=z, tags=["B", "a", "a"],
        provenance={"checkpoint": "tiny", "settings": {"seed": 3}},
    )  # fmt: skip
    entry = library.get(number)
    assert (entry.title, entry.tags, entry.page) == ("Tausonite", ("a", "b"), "generate")
    assert entry.provenance["settings"]["seed"] == 3
    np.testing.assert_allclose(entry.z, z, rtol=1e-6)
    np.testing.assert_allclose(entry.crystal.frac_coords, perovskite().frac_coords, atol=1e-9)
    np.testing.assert_allclose(entry.crystal.lattice, perovskite().lattice, atol=1e-9)
    assert [e.number for e in library.entries("srtio3 tiny")] == [number]
    assert library.entries("absent") == []
    library.retag(number, "Mine", [" B "])
    gone = library.remove([number])
    assert library.entries() == []
    library.restore(gone)
    [again] = library.entries("mine")
    assert again.tags == ("b",)
    np.testing.assert_allclose(again.z, z, rtol=1e-6)
    with pytest.raises(KeyError):
        library.get(number + 1000)
    library.remove([again.number])


def test_a_server_that_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """With or without its driver, and never with the password."""
    monkeypatch.setenv("CDVAE_LIBRARY", "postgresql://me:secret@127.0.0.1:1/crystals")
    with pytest.raises(OutputError, match=r"library postgresql://me@127.0.0.1") as told:
        library.entries()
    assert "secret" not in str(told.value) and "\n" not in str(told.value)


def test_a_library_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("CDVAE_LIBRARY", str(tmp_path / "file" / "library.db"))
    with pytest.raises(OutputError, match="cannot be used"):
        library.save(perovskite(), title="", page="", provenance={})


def test_what_is_kept_is_data(shelf: Path) -> None:
    """Nothing in the file is a pickle."""
    library.save(perovskite(), title="'; DROP TABLE systems; --", page="x", provenance={},
                 z=np.zeros(3))  # fmt: skip
    assert library.entries()[0].title.startswith("'; DROP")
    assert b"\x80\x04\x95" not in shelf.read_bytes()
    json.dumps(library.entries()[0].provenance)
