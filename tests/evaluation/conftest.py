"""Evaluation without a network, in a cache of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cdvae_core.errors import DatasetError
from cdvae_core.evaluation import scoring


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("CDVAE_DATA", str(folder))
    return folder


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The published network cannot be fetched."""

    def load(name: str) -> None:
        raise DatasetError("the published property networks cannot be fetched (no network)")

    monkeypatch.setattr(scoring.OfficialPredictor, "load", load)
    yield
