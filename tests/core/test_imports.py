"""Dependencies point one way, and training needs neither pymatgen nor the app's libraries."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "cdvae_core"
# Each layer may import what stands before it, and modules of its own layer.
LAYERS = (
    {"errors", "config", "baseline_configs", "files", "cluster", "allocator"},
    {"lattice"},
    {"crystal"},
    {"scalers", "graph"},
    {"nn", "noise", "assignment", "optimiser"},
    {"model"},
    {"checkpoint", "losses", "langevin", "prior", "walks", "compiled"},
    {"optimise"},
    {"data", "structures"},
    {"experiment", "encode", "consistency", "decode", "latent"},
    {"trainer", "metrics"},
    {"train", "baselines", "evaluation"},
    {"refine"},
    {"cli"},
)
# Function-level imports that make a method out of a function: CDVAE.load and CDVAE.save.
ALLOWED = {("model", "checkpoint")}
MODULES = sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports anywhere, in full."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            yield node.module or ""
            yield from (f"{node.module}.{name.name}" for name in node.names)


def top(module: str) -> str | None:
    """`graph` of `cdvae_core.graph`, None for what is not this package's."""
    parts = module.split(".")
    return parts[1] if parts[0] == "cdvae_core" and len(parts) > 1 else None


def layer(name: str) -> int:
    return next(i for i, names in enumerate(LAYERS) if name in names)


def owner(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_dependencies_point_one_way(path: Path) -> None:
    own = owner(path)
    if own == "__init__":
        return  # imports its public names on first use
    known = set().union(*LAYERS)
    assert own in known, f"{own} has no place in the layers yet"
    for module in imported(path):
        other = top(module)
        if other in known and other != own and (own, other) not in ALLOWED:
            assert layer(other) <= layer(own), f"{own} imports {other}, which stands above it"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_the_core_knows_no_app(path: Path) -> None:
    foreign = {"app", "streamlit", "plotly", "py3Dmol", "notebooks", "benchmarks", "tests"}
    assert not {module.split(".")[0] for module in imported(path)} & foreign


@pytest.mark.parametrize(
    "path", sorted((ROOT / "app" / "services").glob("*.py")), ids=lambda p: p.name
)
def test_services_know_no_streamlit(path: Path) -> None:
    assert "streamlit" not in {module.split(".")[0] for module in imported(path)}


def loaded_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys; print(*(m.split('.')[0] for m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=400, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


HEAVY = {"pymatgen", "smact", "matminer", "umap", "streamlit", "plotly", "chgnet", "ase"}


def test_training_and_sampling_need_no_crystallography_library() -> None:
    """`train` imports the sampler, the encoder and checkpoints too, or they are named here."""
    assert (
        not loaded_after("import cdvae_core.train, cdvae_core.langevin, cdvae_core.encode") & HEAVY
    )


def test_the_command_starts_without_torch() -> None:
    assert not loaded_after("import cdvae_core.cli") & (HEAVY | {"torch", "lightning"})
