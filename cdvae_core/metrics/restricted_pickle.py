"""Reads a torch checkpoint of the zip format without running anything that it names.

A pickle is a program. The unpickler here lends it tensors, plain containers and nothing else: any
other class or function it asks for becomes an inert `Placeholder`, which accepts whatever it is
called with and keeps it. So a Lightning checkpoint opens without Lightning, and one made to run
code runs none.
"""

from __future__ import annotations

import math
import pickle
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from io import IOBase
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import Tensor

from cdvae_core.errors import CheckpointError

_CONTAINERS = {
    **{(module, kind.__name__): kind for module in ("builtins", "__builtin__")
       for kind in (dict, list, tuple, set, frozenset, bool, int, float, str, bytes)},
    ("__builtin__", "long"): int,
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): defaultdict,
}  # fmt: skip
_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_DAMAGE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
)


class Placeholder:
    """Stands for an object of a class that is not allowed. `state` is what it was built from."""

    state: Any = None
    arguments: tuple = ()
    named: Mapping[str, Any] = MappingProxyType({})

    def __new__(cls, *arguments: Any, **named: Any) -> Placeholder:
        del arguments, named
        return object.__new__(cls)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.arguments, self.named = arguments, named

    def __call__(self, *arguments: Any, **named: Any) -> Placeholder:
        """What an inert object makes is inert, too: PyG builds its batches by such a call."""
        return Placeholder(*arguments, **named)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        del key, value

    def append(self, item: Any) -> None:
        """Lists of a foreign class lose their items."""

    def extend(self, items: Any) -> None:
        """Likewise."""


def _tensor_builder() -> Callable[..., Tensor]:
    """A new function for each file, so that a file that alters it alters nothing else."""

    def rebuild(storage: Tensor, offset: int, size: tuple, stride: tuple, *unused: Any) -> Tensor:
        del unused  # gradients and hooks
        if math.prod(size) > storage.numel():
            raise pickle.UnpicklingError(f"a tensor {tuple(size)} of {storage.numel()} numbers")
        return storage.as_strided(size, stride, offset).clone()

    return rebuild


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: IOBase, read_storage: Callable[[str], bytes]) -> None:
        super().__init__(file, encoding="utf-8")
        self._read_storage = read_storage
        self._tensor = _tensor_builder()
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _CONTAINERS:
            return _CONTAINERS[module, name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._tensor
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return _STORAGES[name]
        return type(str(name).rpartition(".")[2], (Placeholder,), {"__module__": "inert"})

    def persistent_load(self, pid: Any) -> Tensor:
        kind, dtype, key, *_ = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"unknown persistent id {kind!r}")
        if key not in self._storages:
            data = bytearray(self._read_storage(str(key)))
            self._storages[key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0)
        return self._storages[key]


def load(path: str | Path | IOBase) -> Any:
    """The content of a checkpoint written by `torch.save`: tensors on the CPU, plain containers,
    numbers and strings, with a `Placeholder` for everything else.

    Args:
        path: a file, or one open for reading.

    Raises:
        CheckpointError: not such a file, or a damaged one.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            (program,) = (n for n in archive.namelist() if n.split("/")[1:] == ["data.pkl"])
            folder = program.removesuffix("data.pkl")
            with archive.open(program) as file:
                content = cast(IOBase, file)
                return _Unpickler(content, lambda key: archive.read(f"{folder}data/{key}")).load()
    except _DAMAGE as error:
        raise CheckpointError(f"{path} is no readable torch checkpoint: {error}") from error
