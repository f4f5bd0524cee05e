"""Evaluations from the shell that are killed, that meet absurd cells, or are given odd inputs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from ase import Atoms
from ase.io import write
from typer.testing import CliRunner

from cdvae_core.cli import app
from cdvae_core.crystal import Crystal
from cdvae_core.errors import ConfigError, DatasetError
from cdvae_core.evaluation import work
from cdvae_core.evaluation.inputs import read
from cdvae_core.evaluation.work import Crew, Store, run
from cdvae_core.structures import to_cif

CORNERS = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
NEEDLE = Atoms("C5", cell=[2000, 0.02, 0.02], scaled_positions=CORNERS * 0.7, pbc=True)


def perovskites(count: int, seed: int) -> list[Atoms]:
    """Cubic ones, their atoms displaced by 0.1 Å."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        numbers = [[56, 38, 20][i % 3], [22, 40][i % 2], 8, 8, 8]
        atoms = Atoms(numbers, cell=[4.0, 4.0, 4.0 + 0.01 * i], scaled_positions=CORNERS, pbc=True)
        atoms.positions += rng.normal(scale=0.1, size=(5, 3))
        atoms.info["id"] = f"p{i}"
        made.append(atoms)
    return made


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "cdvae_core.cli", *map(str, words)]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a cache of its own and no network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CDVAE_DATA", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy", "PIP_PROXY", "PIP_INDEX_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("PIP_RETRIES", "0")
    write("given.extxyz", perovskites(40, 0), format="extxyz")
    write("reference.extxyz", perovskites(16, 1), format="extxyz")
    return tmp_path


def evaluate(*words: object, code: int = 0) -> subprocess.CompletedProcess:
    done = subprocess.run(command("evaluate", *words), capture_output=True, text=True, timeout=400)
    assert done.returncode == code, done.stderr[-2000:]
    return done


GENERATION = ("generation", "given.extxyz", "--reference", "reference.extxyz", "--cutoffs",
              "perov_5", "--jobs", 1)  # fmt: skip


def report(folder: str) -> dict:
    found = json.loads((Path(folder) / "report.json").read_text())
    del found["meta"]["seconds"]
    return found


@pytest.mark.slow
def test_killed_midway_and_run_again_gives_the_same_report(project: Path) -> None:
    evaluate(*GENERATION, "--out", "whole")
    killed = subprocess.Popen(command("evaluate", *GENERATION, "--out", "cut"))
    parts = project / "cut" / "parts"
    while len(list(parts.glob("*.json"))) < 2:
        assert killed.poll() is None, "it was over before it could be killed"
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    kept = {part.name for part in parts.glob("*.json")}
    assert not (project / "cut" / "report.json").exists()
    evaluate(*GENERATION, "--out", "cut")
    assert kept < {part.name for part in parts.glob("*.json")}
    assert report("cut") == report("whole")
    tables = [pq.read_table(f"{name}/per_structure.parquet").to_pylist() for name in
              ("cut", "whole")]  # fmt: skip
    assert repr(tables[0]) == repr(tables[1])  # NaN included


@pytest.mark.slow
def test_the_children_of_a_killed_run_end(project: Path) -> None:
    """Also one that is deep in a crystal that takes forever."""
    write("needle.extxyz", [NEEDLE], format="extxyz")
    process = subprocess.Popen(
        command("evaluate", "generation", "needle.extxyz", *GENERATION[2:], "--out", "out",
                "--timeout", 1000)
    )  # fmt: skip
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        process.kill()
        pytest.skip("needs /proc with the children of a process")
    found: list[int] = []
    deadline = time.monotonic() + 200
    while not found and time.monotonic() < deadline:
        threads = Path(f"/proc/{process.pid}/task").glob("*/children")
        found = [int(pid) for path in threads for pid in path.read_text().split()]
        time.sleep(0.1)
    assert found
    time.sleep(15)  # until it is in the middle of it
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in found) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in found)


@pytest.mark.slow
def test_an_absurd_cell_times_out_alone_and_is_listed(project: Path) -> None:
    """2 µm long and 0.02 Å thin: its neighbours are searched in C, which no signal interrupts."""
    good = perovskites(3, 2)
    write("odd.extxyz", [good[0], NEEDLE, *good[1:]], format="extxyz")
    evaluate("generation", "odd.extxyz", *GENERATION[2:], "--timeout", 15, "--out", "out")
    table = pq.read_table("out/per_structure.parquet").to_pylist()
    assert [bool(row["failures"]) for row in table] == [False, True, False, False]
    assert "more than 15 s" in table[1]["failures"] and not table[1]["valid"]
    assert "more than 15 s" in Path("out/report.html").read_text()
    found = report("out")
    assert found["metrics"]["struct_valid"] == pytest.approx(3 / 4)  # it counts against the model


def test_the_processes_serve_one_run_after_the_other(project: Path) -> None:
    """Their imports take seconds, and an evaluation has several runs."""
    crystals = [(_crystal(atoms),) for atoms in perovskites(3, 3)]
    crew = Crew(jobs=1, quiet=True)
    dismiss()
    run("rmse", [(*crystals[0], *crystals[0])], Store(project / "store"), crew, "")
    (first,) = [worker._process.pid for worker in work._idle]
    run("rmse", [(*crystals[1], *crystals[2])], Store(project / "store"), crew, "")
    (again,) = [worker._process.pid for worker in work._idle]
    assert first == again
    dismiss()
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


def dismiss() -> None:
    while work._idle:
        work._idle.pop().close()


def _crystal(atoms: Atoms) -> Crystal:
    return Crystal(atoms.numbers, atoms.get_scaled_positions(), np.array(atoms.cell))


class Inert:
    """An object of nobody's, of which only the state is read."""

    def __init__(self, **state: object) -> None:
        self.__dict__.update(state)


def test_a_file_that_is_one_object_is_read_or_refused(project: Path) -> None:
    crystals = [_crystal(atoms) for atoms in perovskites(2, 4)]
    arrays = {
        "frac_coords": torch.tensor(np.concatenate([c.frac_coords for c in crystals]))[None],
        "atom_types": torch.tensor(np.concatenate([c.atomic_numbers for c in crystals]))[None],
        "lengths": torch.tensor(np.array([c.lengths for c in crystals]))[None],
        "angles": torch.tensor(np.array([c.angles for c in crystals]))[None],
        "num_atoms": torch.tensor([[5, 5]]),
    }
    torch.save(Inert(**arrays), "object.pt")
    torch.save(Inert(other=torch.zeros(3)), "other.pt")
    found = read("object.pt")
    assert [item.formula for item in found.items] == [c.formula for c in crystals]
    with pytest.raises(DatasetError, match="no published eval"):
        read("other.pt")


def test_the_folder_that_one_stands_in(project: Path) -> None:
    """`.` has no name of its own, but its report goes beside it like any other."""
    (project / "cifs").mkdir()
    for i, atoms in enumerate(perovskites(2, 5)):
        (project / "cifs" / f"{i}.cif").write_text(to_cif(_crystal(atoms)))
    done = subprocess.run(
        command("evaluate", "generation", ".", "--reference", "../reference.extxyz",
                *GENERATION[-4:]),
        cwd=project / "cifs", capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert (project / "cifs-report" / "report.json").is_file()
    assert "generation of cifs" in done.stdout


def test_a_wrong_number_of_starts_is_said_before_anything_is_measured(project: Path) -> None:
    words = ["evaluate", "optimisation", "given.extxyz", "--reference", "perov_like:test",
             "--starts", "7"]  # fmt: skip
    found = CliRunner().invoke(app, words)
    assert isinstance(found.exception, ConfigError)
    assert "given.extxyz has 40 crystals" in str(found.exception)
    assert "--starts" in str(found.exception)
    assert not (project / "given-report").exists() and not (project / "cache").exists()
