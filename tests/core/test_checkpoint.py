"""A checkpoint folder: what goes in comes out, and what is damaged is said to be."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from examples import batch, multigraph, perovskites, small_model
from safetensors.torch import load_file, save_file

from cdvae_core import CDVAE, checkpoint
from cdvae_core.errors import CheckpointError, OutputError

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = small_model(0)
    model.provenance = {"dataset": "made", "seed": 7}
    model.save(tmp_path / "model")
    return tmp_path / "model"


def edit(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def edit_weights(folder: Path, change: Any) -> None:
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS)


def test_round_trip(folder: Path) -> None:
    model, again = small_model(0), CDVAE.load(folder)
    assert not again.training
    assert again.config == model.config and again.scalers == model.scalers
    assert again.provenance == {"dataset": "made", "seed": 7}
    crystals = perovskites(3)
    given, graph = batch(crystals, torch.float32), multigraph(crystals)
    with torch.no_grad():
        for one, other in zip(model.encode(given, graph), again.encode(given, graph), strict=True):
            assert torch.equal(one, other)
        z = model.encode(given, graph)[0]
        assert torch.equal(model.score(z, given).vectors, again.score(z, given).vectors)
        assert torch.equal(model.predict_property(z), again.predict_property(z))


def test_half_precision_takes_half_the_bytes_and_is_read_in_single(tmp_path: Path) -> None:
    model = small_model(0)
    for name, half in (("whole", False), ("half", True)):
        checkpoint.save(model, tmp_path / name, half)
    sizes = [(tmp_path / name / WEIGHTS).stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    again = CDVAE.load(tmp_path / "half")
    assert again.dtype == torch.float32
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=2**-11, atol=2**-24)
    checkpoint.save(again, tmp_path / "twice", half=True)
    first, second = (checkpoint.read_config(tmp_path / name) for name in ("half", "twice"))
    assert first["weights"] == second["weights"]


def test_a_second_round_trip_writes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    CDVAE.load(folder).save(tmp_path / "again")
    for name in (WEIGHTS, "config.json"):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_config_says_what_the_weights_mean(folder: Path) -> None:
    config = checkpoint.read_config(folder)
    assert config["elements"][:2] == ["H", "He"] and len(config["elements"]) == 100
    assert config["code_version"] and config["model"]["noise"]["levels"] == 50
    assert len(config["scalers"]["lattice_mean"]) == 6


def test_saving_leaves_no_temporary_files_and_files_that_others_can_read(folder: Path) -> None:
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", WEIGHTS]
    assert all(p.stat().st_mode & 0o044 == 0o044 for p in folder.iterdir())


def test_an_interrupted_save_leaves_the_old_one_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match="No space"):
        small_model(1).save(folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_a_save_between_the_two_files_is_no_mixture(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the weights: the folder is the old one, the new one, or an error, no blend."""
    replace = Path.replace
    calls = []

    def once(source: Path, target: Path) -> None:
        if calls:
            raise KeyboardInterrupt
        calls.append(target)
        replace(source, target)

    monkeypatch.setattr(Path, "replace", once)
    new = small_model(1)
    new.provenance = {"dataset": "other"}
    with pytest.raises(KeyboardInterrupt):
        new.save(folder)
    monkeypatch.undo()
    try:
        found = CDVAE.load(folder)
    except CheckpointError:
        return
    old = torch.equal(found.fc_mu.weight, small_model(0).fc_mu.weight)
    assert found.provenance == ({"dataset": "made", "seed": 7} if old else {"dataset": "other"})


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint"):
        CDVAE.load(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        CDVAE.load(tmp_path)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        CDVAE.load(file)


def test_missing_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=f"has no {WEIGHTS}"):
        CDVAE.load(folder)


@pytest.mark.parametrize("keep", [0, 4, 100, 50_000, -1])
def test_truncated_weights(folder: Path, keep: int) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:keep])
    with pytest.raises(CheckpointError, match="damaged or truncated"):
        CDVAE.load(folder)


@pytest.mark.parametrize("text", ["", "{", '{"format": 2', "[1, 2]", "{}", "null", "\x00\x01"])
def test_damaged_or_foreign_json(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        CDVAE.load(folder)


def test_json_of_something_else(folder: Path) -> None:
    (folder / "config.json").write_text('{"architectures": ["BertModel"], "hidden_size": 768}')
    with pytest.raises(CheckpointError, match="not written by this project"):
        CDVAE.load(folder)


@pytest.mark.parametrize("version", [0, 1, 3, "2", None])
def test_another_version(folder: Path, version: object) -> None:
    edit(folder, format=version, code_version="9.9")
    with pytest.raises(CheckpointError, match=r"9\.9"):
        CDVAE.load(folder)


def test_weights_that_do_not_fit(folder: Path) -> None:
    edit_weights(folder, lambda w: w.pop("fc_mu.bias"))
    with pytest.raises(CheckpointError, match=r"lacks 'fc_mu\.bias'"):
        CDVAE.load(folder)


def test_weights_too_many(folder: Path) -> None:
    edit_weights(folder, lambda w: w.update(extra=torch.zeros(2)))
    with pytest.raises(CheckpointError, match="unknown 'extra'"):
        CDVAE.load(folder)


def test_weights_of_another_shape(folder: Path) -> None:
    edit_weights(folder, lambda w: w.update({"fc_mu.bias": torch.zeros(3)}))
    with pytest.raises(CheckpointError, match=r"'fc_mu\.bias' is \[3\]"):
        CDVAE.load(folder)


def test_weights_that_are_not_finite(folder: Path) -> None:
    edit_weights(folder, lambda w: w["fc_mu.bias"].fill_(float("nan")))
    with pytest.raises(CheckpointError, match="not finite"):
        CDVAE.load(folder)


def test_nothing_is_ever_unpickled(folder: Path, tmp_path: Path) -> None:
    flag = tmp_path / "it ran"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (flag,)

    (folder / WEIGHTS).write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError):
        CDVAE.load(folder)
    torch.save({"fc_mu.bias": Evil()}, folder / WEIGHTS)
    with pytest.raises(CheckpointError):
        CDVAE.load(folder)
    (folder / "config.json").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError):
        CDVAE.load(folder)
    assert not flag.exists()
