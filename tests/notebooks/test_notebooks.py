"""The notebooks run from top to bottom, hold what a lecture needs, and name no machine."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FAST = "01"
LARGEST = 600_000  # bytes
SCRIPT = re.compile(r"<script|application/vnd\.plotly|application/javascript")
PLACE = re.compile(r"(?<![\w/:])/(?:home|root|tmp|work|Users|var|usr|opt)/|[A-Z]:\\\\")


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def outputs(path: Path) -> list[Any]:
    return [o for cell in read(path).cells for o in cell.get("outputs", [])]


def test_there_are_notebooks() -> None:
    assert [path.name[:2] for path in NOTEBOOKS][:1] == [FAST]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestAsCommitted:
    def test_is_valid_and_of_the_right_length(self, path: Path) -> None:
        notebook = read(path)
        nbformat.validate(notebook)
        assert 12 <= len(notebook.cells) <= 20
        assert notebook.metadata.kernelspec.name == "python3"

    def test_ends_with_exercises_and_a_folded_solution(self, path: Path) -> None:
        last = read(path).cells[-1]
        assert last.cell_type == "markdown"
        assert "## Exercises" in last.source
        assert "<details><summary>Solution</summary>\n\n" in last.source
        assert last.source.rstrip().endswith("</details>")

    def test_shows_static_results_and_no_place_of_a_machine(self, path: Path) -> None:
        assert any("image/png" in o.get("data", {}) for o in outputs(path))
        for output in outputs(path):
            assert output.output_type != "error"
            assert output.get("name") != "stderr"
            texts = {k: v for k, v in output.get("data", {}).items() if k != "image/png"}
            said = f"{texts}{output.get('text', '')}"
            assert not SCRIPT.search(said)
            assert not PLACE.search(said)
            assert "\x1b" not in output.get("text", "")  # no progress bars, no terminal's colours

    def test_is_small(self, path: Path) -> None:
        assert path.stat().st_size < LARGEST


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(p, id=p.stem, marks=[] if p.name.startswith(FAST) else pytest.mark.slow)
        for p in NOTEBOOKS
    ],
)
def test_runs_from_top_to_bottom(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a copy of the folder, beside links to all else that it may read."""
    copy = tmp_path / "notebooks"
    copy.mkdir()
    for needed in (path, path.parent / "lab.py"):
        shutil.copy(needed, copy)
    for name in ("app", "benchmarks", "checkpoints"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.setenv("CDVAE_DATA", str(tmp_path / "cache"))
    notebook = read(copy / path.name)
    place = {"metadata": {"path": str(copy)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=place).execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert output.get("name") != "stderr", output.text
