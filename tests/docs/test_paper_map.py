"""The paper-to-code map: every label of the paper has a row, and every name in it exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "paper-map.md"
LABELS = {
    *(f"Eq. {n}" for n in range(1, 9)),
    *(f"Algorithm 1, line {n}" for n in range(1, 15)),
    *(f"Section {n}" for n in ("1", "2", "3", "4", "4.1", "4.2", "4.3", "5")),
    *(f"Table {n}" for n in range(1, 4)),
    *(f"Figure {n}" for n in range(1, 6)),
    *"A.1 A.2 A.3 B C D.1 D.2 D.3 D.4 D.5 E F.1 F.2 F.3 G.1 G.2 G.3 H".split(),
}
NOTHING = {"Section 1", "Section 5", "H"}


def rows() -> list[list[str]]:
    """The cells of every row of the page's tables."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    return [row for row in cells if row[0] != "paper" and set(row[0]) != {"-"}]


def label(row: list[str]) -> str:
    """`D.3` of `D.3, noise`; a line of the algorithm is a label of its own."""
    return row[0] if row[0].startswith("Algorithm") else row[0].partition(",")[0]


NAMES = sorted({name for row in rows() for name in re.findall(r"`([^`]+)`", row[2])})


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def members(node: ast.Module | ast.ClassDef) -> dict[str, ast.stmt]:
    """What a module or a class defines: functions, classes, and names that are assigned."""
    found: dict[str, ast.stmt] = {}
    for part in node.body:
        if isinstance(part, ast.FunctionDef | ast.ClassDef):
            found[part.name] = part
        elif isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            found[part.target.id] = part
        elif isinstance(part, ast.Assign):
            found |= {t.id: part for target in part.targets for t in ast.walk(target)
                      if isinstance(t, ast.Name)}  # fmt: skip
    return found


def exists(name: str) -> bool:
    """Whether `file::test`, `folder/file.py` or `module.name` of the package is there."""
    file, _, test = name.partition("::")
    if "/" in file:
        path = ROOT / file
        return path.is_file() and (not test or test in members(tree(path)))
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        path = ROOT.joinpath("cdvae_core", *parts[:length]).with_suffix(".py")
        if path.is_file():
            return _inside(tree(path), parts[length:])
    return False


def _inside(node: ast.Module | ast.ClassDef, names: list[str]) -> bool:
    for name in names:
        found = members(node).get(name) if isinstance(node, ast.Module | ast.ClassDef) else None
        if found is None:
            return False
        node = found
    return True


def test_every_label_has_a_row() -> None:
    assert {label(row) for row in rows()} == LABELS


def test_every_row_says_where() -> None:
    silent = [row[0] for row in rows() if label(row) not in NOTHING and "`" not in row[2]]
    assert not silent


@pytest.mark.parametrize("name", NAMES)
def test_every_name_exists(name: str) -> None:
    assert exists(name)


@pytest.mark.parametrize(
    "name",
    ["losses.no_such", "nowhere.at_all", "model.CDVAE.no_such", "crystal.SYMBOLS.x", "losses",
     "app/views/no_such.py", "tests/core/test_noise.py::test_no_such"],
)  # fmt: skip
def test_a_name_that_does_not_exist_is_found_out(name: str) -> None:
    assert not exists(name)


def test_labels_are_those_of_the_paper(shared: Path) -> None:
    """Against the paper's own text, where it is at hand."""
    papers = list((shared / "paper").glob("*.txt"))
    if not papers:
        pytest.skip("the paper's text is not at hand")
    text = papers[0].read_text(encoding="utf-8")
    equations = re.findall(r"\\tag\{(\d)\}|^\s*\((\d)\)$", text, re.MULTILINE)
    assert {f"Eq. {one or other}" for one, other in equations} == {
        x for x in LABELS if x[:2] == "Eq"
    }
    appendices = re.findall(r"^([A-H](?:\.\d)?) [A-Z]\w", text, re.MULTILINE)
    sections = {x for x in appendices if not any(y.startswith(f"{x}.") for y in appendices)}
    assert sections == {x for x in LABELS if re.fullmatch(r"[A-H](\.\d)?", x)}
