"""`cdvae data ...` from a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from toys import cif_text, random_crystal

from cdvae_core.data.cache import open_split
from cdvae_core.structures import to_cif


def cdvae(*arguments: object) -> subprocess.CompletedProcess[str]:
    code = "from cdvae_core.cli import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def refused(*arguments: object) -> str:
    """The one line that a refused command writes."""
    done = cdvae(*arguments)
    assert done.returncode == 2, done
    lines = [line for line in done.stderr.splitlines() if line.startswith("cdvae: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "mine"
    path.mkdir()
    for i in range(5):
        (path / f"{i}.cif").write_text(to_cif(random_crystal(rng, 2)))
    (path / "bad.cif").write_text(cif_text(c=0))
    return path


def test_a_folder_is_listed_built_and_described(cache: Path, folder: Path) -> None:
    built = cdvae("data", "build", folder, "--workers", 1)
    assert built.returncode == 0, built.stderr
    assert "skipped bad.cif: the CIF cannot be read: the cell has no volume" in built.stdout
    assert "100%" in built.stderr
    assert sum(len(open_split("mine", s)) for s in ("train", "val", "test")) == 5
    listed = cdvae("data", "list").stdout
    for name in ("perov_like", "mp_like", "perov_5", "carbon_24", "mp_20", "mine"):
        assert name in listed
    told = cdvae("data", "info", "mine")
    assert told.returncode == 0
    assert "fingerprint" in told.stdout


def test_refusals(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("")
    assert "empty.csv is empty" in refused("data", "build", tmp_path / "empty.csv")
    assert "has neither train.csv" in refused("data", "fetch", "mp_20", "--from", tmp_path)


@pytest.mark.slow
def test_killed_for_good_and_run_again(cache: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [f'{i},"{to_cif(random_crystal(rng))}"' for i in range(700)]
    (tmp_path / "many.csv").write_text("\n".join(["id,cif", *rows]))
    code = "from cdvae_core.cli import main; main()"
    command = [sys.executable, "-c", code, "data", "build", str(tmp_path / "many.csv")]
    process = subprocess.Popen([*command, "--workers", "2"], stderr=subprocess.DEVNULL)
    parts = cache / "prepared" / "many-train.parts"
    while len(list(parts.glob("*.safetensors"))) < 4:
        assert process.poll() is None
    process.kill()
    process.wait()
    kept = {p.name: p.stat().st_mtime_ns for p in parts.glob("*.safetensors")}
    process = subprocess.Popen([*command, "--workers", "2"], stderr=subprocess.DEVNULL)
    while len(list(parts.glob("*.safetensors"))) < len(kept) + 1:
        assert process.poll() is None
    now = {p.name: p.stat().st_mtime_ns for p in parts.glob("*.safetensors")}
    assert process.wait() == 0
    assert kept.items() <= now.items()  # what was done is not done again
    assert len(open_split("many", "train")) == 560
    assert not list((cache / "prepared").glob("*.tmp")) and not parts.exists()


@pytest.mark.slow
def test_a_benchmark_from_a_folder(shared: Path, cache: Path) -> None:
    done = cdvae("data", "fetch", "carbon_24", "--from", shared / "data")
    assert "note (train): incomplete: 712 of the official 6,091 rows" in done.stdout
    assert cdvae("data", "build", "carbon_24", "--limit", 8).returncode == 0
    split = open_split("carbon_24", "train")
    assert len(split) == 8
    assert "incomplete" in split.info.notes[0] and "first 8" in split.info.notes[1]
    assert np.isfinite(split.properties["energy_per_atom"]).all()
