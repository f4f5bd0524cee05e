"""Checkpoints are read, and what they would run is not."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import Path

import pytest
import torch

from cdvae_core.errors import CheckpointError
from cdvae_core.metrics.restricted_pickle import Placeholder, load


def archive(program: bytes, **storages: bytes) -> io.BytesIO:
    """A file of torch's zip format around a pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as target:
        target.writestr("archive/data.pkl", program)
        for key, data in storages.items():
            target.writestr(f"archive/data/{key}", data)
    return file


class Runs:
    """Pickles as a call."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


class Scaler:
    def __init__(self) -> None:
        self.mean = torch.tensor(1.5)


def test_tensors_and_containers_survive(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    content = {
        "floats": base,
        "a view": base.T[1:],
        "parameter-free": OrderedDict(w=torch.randn(2, 2, dtype=torch.float64)),
        "kinds": [torch.tensor([True, False]), torch.tensor(7), torch.ones(2).bfloat16()],
        "empty": torch.zeros(0, 3),
        "plain": ("text", 1, 2.5, None, {3}, defaultdict(list, a=[1])),
    }
    path = tmp_path / "file.ckpt"
    torch.save(content, path)
    result = load(path)
    assert torch.equal(result["floats"], base)
    assert torch.equal(result["a view"], base.T[1:])
    assert torch.equal(result["parameter-free"]["w"], content["parameter-free"]["w"])
    for got, wanted in zip(result["kinds"], content["kinds"], strict=True):
        assert got.dtype == wanted.dtype
        assert torch.equal(got, wanted)
    assert result["empty"].shape == (0, 3)
    assert result["plain"] == content["plain"]


def test_foreign_objects_are_inert_and_keep_their_state(tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    torch.save(Scaler(), path)
    result = load(path)
    assert isinstance(result, Placeholder)
    assert not isinstance(result, Scaler)
    assert result.state["mean"].item() == 1.5


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_that_a_pickle_names_is_run(tmp_path: Path, protocol: int) -> None:
    import os

    marks = [tmp_path / f"mark{i}" for i in range(4)]
    attacks = [
        Runs(os.system, f"touch {marks[0]}"),
        Runs(eval, f"open({str(marks[1])!r}, 'w')"),
        Runs(exec, f"open({str(marks[2])!r}, 'w')"),
        Runs(open, str(marks[3]), "w"),
    ]
    result = load(archive(pickle.dumps({"state_dict": attacks}, protocol)))
    assert all(isinstance(item, Placeholder) for item in result["state_dict"])
    assert not any(mark.exists() for mark in marks)


def test_indirect_ways_out_are_closed(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    command = f"touch {mark}".encode()
    programs = [
        b"(S'" + command + b"'\nios\nsystem\n.",  # INST
        b"c__builtin__\ngetattr\n(c__builtin__\ndict\nS'get'\ntR(S'x'\ntR.",
        b"cos\nsystem\n(S'" + command + b"'\ntR.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c" + bytes([len(command)]) + command + b"\x85R.",
        b"ccdvae_core.metrics.restricted_pickle\nload\n(S'" + command + b"'\ntR.",
        b"ctorch.serialization\nload\n(S'x'\ntR.",
        b"ctorch._utils\n_rebuild_tensor_v2\n}S'__code__'\nI1\nsb.",
    ]
    for program in programs:
        try:
            load(archive(program))
        except CheckpointError:
            continue
    assert not mark.exists()
    assert torch.equal(load(saved(torch.ones(2))), torch.ones(2))  # nothing was altered


def saved(content: object) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(content, file)
    return file


def test_damage_is_one_clear_error(tmp_path: Path) -> None:
    whole = saved({"w": torch.randn(100)}).getvalue()
    for data in (b"", b"text", whole[: len(whole) // 2], pickle.dumps([1])):
        path = tmp_path / "file.ckpt"
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=r"file\.ckpt"):
            load(path)
    with pytest.raises(CheckpointError):
        load(archive(b"\x80\x02not a pickle"))
    with pytest.raises(CheckpointError):
        load(archive(pickle.dumps([1])[:-2]))
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as other:
        other.writestr("a/b.txt", "x")
    with pytest.raises(CheckpointError):
        load(tmp_path / "other.zip")


def test_a_tensor_cannot_be_larger_than_its_storage() -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            storage = torch.zeros(1).untyped_storage()
            typed = torch.storage.TypedStorage(
                wrap_storage=storage, dtype=torch.float32, _internal=True
            )
            return torch._utils._rebuild_tensor_v2, (typed, 0, (10**9,), (0,), False, OrderedDict())

    with pytest.raises(CheckpointError, match="1 numbers"):
        load(saved(Bomb()))
