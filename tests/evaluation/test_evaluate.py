"""`cdvae evaluate` and `cdvae compare` as a person types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from perovskites import perovskite
from typer.testing import CliRunner

from cdvae_core.cli import app
from cdvae_core.crystal import Crystal
from cdvae_core.decode import Decoded, Folder
from cdvae_core.errors import CdvaeError
from cdvae_core.evaluation import published
from cdvae_core.evaluation.glossary import MEANINGS
from cdvae_core.structures import to_cif


def cdvae(*arguments: object, code: int = 0) -> subprocess.CompletedProcess:
    """With a proxy that answers nobody: as without a network."""
    blocked = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "PIP_PROXY")}
    done = subprocess.run(
        [sys.executable, "-c", "from cdvae_core.cli import main; main()", *map(str, arguments)],
        capture_output=True, text=True, timeout=300,
        env=os.environ | blocked | {"PIP_INDEX_URL": "http://127.0.0.1:9", "PIP_RETRIES": "0"},
    )  # fmt: skip
    assert done.returncode == code, done.stderr[-2000:]
    return done


def csv(path: Path, crystals: list[Crystal]) -> Path:
    path.write_text("cif\n" + "\n".join(f'"{to_cif(crystal)}"' for crystal in crystals))
    return path


@pytest.fixture
def reconstructed(tmp_path: Path) -> Path:
    true = [perovskite(4.0), perovskite(4.1, (38, 22, 8)), perovskite(4.2, (20, 22, 8))]
    settings = {"k": 1, "dataset": "perov_like", "split": "test"}
    folder = Folder(tmp_path / "reconstructed", settings)
    folder.reference(true, ["a", "b", "c"])
    made = [true[0], true[2], None]
    folder.add([Decoded(str(i), crystal, "no volume") for i, crystal in enumerate(made)])
    return folder.path


def test_a_reconstruction_and_what_it_leaves(reconstructed: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    said = cdvae("evaluate", "reconstruction", reconstructed, "--out", out).stdout
    report = json.loads((out / "report.json").read_text())
    assert report["metrics"]["match_rate"] == pytest.approx(1 / 3)
    assert {"rms_dist", "comp_valid", "struct_valid", "valid", "match_rate_ungated"} <= report[
        "metrics"
    ].keys()
    assert report["meta"]["n"] == 3 and report["meta"]["seed"] == 0
    assert {"cdvae", "pymatgen", "smact"} <= report["meta"]["versions"].keys()
    assert report["noise_floor"]["match_rate_ungated"] <= 1 / 3
    assert "33.33 %" in said and "noise floor" in said
    table = pq.read_table(out / "per_structure.parquet").to_pylist()
    assert [row["id"] for row in table] == ["0", "1", "2"]
    assert "no volume" in table[2]["failures"] and table[0]["valid"]
    page = (out / "report.html").read_text()
    assert "no volume" in page and "src=" not in page and "<script" not in page
    assert {path.name for path in out.iterdir()} == {
        "report.json", "report.html", "per_structure.parquet", "parts",
    }  # fmt: skip


def test_a_generation_against_a_file_and_a_comparison(tmp_path: Path) -> None:
    made = [perovskite(0.8), perovskite(4.0), perovskite(4.2, (38, 22, 8))]
    given = csv(tmp_path / "given.csv", made)
    reference = csv(tmp_path / "reference.csv", [perovskite(4.0), perovskite(4.0, (20, 22, 8))])
    out = tmp_path / "one"
    cdvae("evaluate", "generation", given, "--reference", reference, "--cutoffs", "perov_5",
          "--out", out)  # fmt: skip
    report = json.loads((out / "report.json").read_text())
    assert report["counts"] == {"crystals": 3, "reference": 2, "sample": 2}
    assert report["metrics"]["metre"] == 0.5 and report["noise_floor"] == {}
    assert report["metrics"]["wdist_prop"] > 0 and report["meta"]["network"] == "perov_5"
    assert report["metrics"].keys() <= MEANINGS.keys()
    table = pq.read_table(out / "per_structure.parquet").to_pylist()
    assert [row["energy"] is None for row in table] == [True, False, False]  # the first is invalid
    cdvae("evaluate", "generation", given, "--reference", reference, "--cutoffs", "perov_5",
          "--of", "1", "--out", tmp_path / "part")  # fmt: skip
    part = json.loads((tmp_path / "part" / "report.json").read_text())
    assert part["counts"]["reference"] == 1
    assert any("1 of the 2 crystals" in note for note in part["notes"])
    said = cdvae("compare", out / "report.json", out, "--paper", "--out", tmp_path / "both").stdout
    assert "CDVAE (paper)" in said and "98.59 %" in said and "10,000" in said
    assert "<svg" in (tmp_path / "both" / "compare.html").read_text()


def test_wrong_input_is_one_sentence(reconstructed: Path, tmp_path: Path) -> None:
    """`main` turns these errors into a sentence and exit code 2, as the last of them shows."""
    given, out = csv(tmp_path / "given.csv", [perovskite(4.0)]), tmp_path / "out"
    (tmp_path / "no.json").write_text("{}")
    for arguments, says in (
        (("evaluate", "generation", "nothing.csv", "--reference", "mp_like:test"), "nothing.csv"),
        (("evaluate", "reconstruction", given), "--reference"),
        (("evaluate", "reconstruction", given, "--reference", "mp_like:test"), "pair by pair"),
        (("evaluate", "generation", given, "--reference", given), "--cutoffs"),
        (("evaluate", "generation", given, "--reference", given, "--cutoffs", "x"), "'x'"),
        (("evaluate", "generation", given, "--reference", "mp_like:dev"), "mp_like:dev"),
        (("evaluate", "optimisation", given, "--reference", "perov_like:test"), "--starts"),
        (("evaluate", "reconstruction", reconstructed, "--scheduler", "tcp://127.0.0.1:9"),
         "tcp://127.0.0.1:9"),
        (("compare", tmp_path / "no.json"), "no.json"),
    ):  # fmt: skip
        found = CliRunner().invoke(app, [str(word) for word in (*arguments, "--out", out)])
        assert isinstance(found.exception, CdvaeError), found.exception
        assert says in str(found.exception) and "\n" not in str(found.exception)
        assert not (out / "report.json").exists()
    done = cdvae("compare", tmp_path / "no.json", code=2)
    assert done.stderr.startswith("cdvae: ") and len(done.stderr.splitlines()) == 1


def test_every_figure_of_the_paper_has_a_meaning() -> None:
    for task in ("reconstruction", "generation", "optimisation"):
        for dataset in ("perov_5", "carbon_24", "mp_20"):
            found = published.rows(task, dataset)
            assert "CDVAE (paper)" in found
            assert all(row.keys() <= MEANINGS.keys() for row in found.values())
