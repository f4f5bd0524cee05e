"""A cluster that nobody can work on is named in one sentence, before anything is written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from examples import small_model

from cdvae_core.cluster import connect
from cdvae_core.errors import ConfigError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "model"
    small_model(0).save(path)
    return path


def test_nobody_answers() -> None:
    pytest.importorskip("distributed")
    with pytest.raises(ConfigError, match="no Dask scheduler answers at nonsense"):
        connect("nonsense")


def test_a_scheduler_without_workers() -> None:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=0, processes=False, protocol="tcp://", dashboard_address=None
        ) as local,
        pytest.raises(ConfigError, match="has no workers"),
    ):
        connect(local.scheduler_address, patience=0.5)


@pytest.mark.parametrize("command", ["sample", "evaluate"])
def test_without_dask_the_way_out_is_named(checkpoint: Path, tmp_path: Path, command: str) -> None:
    """An installation without the extra `cluster`, from the shell."""
    arguments = {
        "sample": ["sample", str(checkpoint), "--out", "out", "--device", "cpu"],
        "evaluate": ["evaluate", "generation", "perov_like:val", "--reference", "perov_like:test"],
    }[command]
    hide = (
        "import sys; sys.modules['distributed'] = sys.modules['dask'] = None; "
        "from cdvae_core.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", hide, *arguments, "--scheduler", "tcp://127.0.0.1:8786"],
        cwd=tmp_path, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 2
    (said,) = done.stderr.strip().splitlines()
    assert said.startswith("cdvae: ") and "cdvae[cluster]" in said
    assert not list(tmp_path.iterdir())
