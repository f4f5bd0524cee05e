"""Which part of the app may know which, and how long a page may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

APP = Path(__file__).parents[2] / "app"
PAGES = {
    "home", "latent_map", "trajectory", "interpolate", "optimise", "generate", "compare", "library",
}  # fmt: skip


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", sorted(APP.glob("services/*.py")), ids=lambda p: p.stem)
def test_services_know_neither_streamlit_nor_what_is_above_them(path: Path) -> None:
    above = ("streamlit", "plotly", "app.components", "app.views", "app.cache")
    assert not [name for name in imported(path) if name.startswith(above)]


@pytest.mark.parametrize("path", sorted(APP.rglob("*.py")), ids=lambda p: p.stem)
def test_only_the_cache_caches(path: Path) -> None:
    if path.name != "cache.py":
        assert "st.cache_" not in path.read_text()


@pytest.mark.parametrize("path", sorted(APP.glob("views/*")), ids=lambda p: p.stem)
def test_views_are_short_pages(path: Path) -> None:
    if path.is_dir():
        assert path.name == "__pycache__"
        return
    assert path.suffix == ".py" and path.stem in PAGES
    text = path.read_text()
    assert len(text.splitlines()) <= 90
    assert not [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    assert not [name for name in imported(path) if name.startswith("cdvae_core")]


def test_starting_the_app_imports_nothing_slow() -> None:
    slow = ("umap", "numba", "lightning", "pymatgen", "smact", "matplotlib", "torch_geometric")
    code = f"import sys, app.cache; print([m for m in {slow!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=APP.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_3d_library_is_the_released_one_with_its_license() -> None:
    import hashlib

    library = (APP / "static" / "3Dmol-min.js").read_bytes()
    assert len(library) == 537_792  # 3dmol 2.5.5
    assert hashlib.sha256(library).hexdigest().startswith("f7cc78921ae72e76")
    assert "BSD-3-Clause" in (APP / "static" / "3Dmol-LICENSE.txt").read_text()
