"""The library: what a person has kept, with how it came to be, in an ASE database.

SQLite by default, in the user's data directory; `CDVAE_LIBRARY` names another file, or a
PostgreSQL URL. Each entry is a crystal with a formula, tags, and its provenance: page, checkpoint,
seed, settings and z. Entries are text and numbers; nothing in them is run or unpickled.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import uuid4

import numpy as np
import platformdirs

from app.services.chemistry import formula, plain
from app.services.export import to_atoms
from cdvae_core.crystal import Crystal
from cdvae_core.errors import OutputError

VARIABLE = "CDVAE_LIBRARY"
_lock = Lock()  # one writer at a time in this process; SQLite keeps processes apart


@dataclass(frozen=True, eq=False)
class Entry:
    """One kept crystal.

    Attributes:
        number: its row, for people; another one after an undo.
        key: its name for life, by which other entries refer to it.
        title: what the person or the page called it.
        tags: words, sorted.
        page: where it was made.
        provenance: checkpoint, seed, settings and what else the page needs to open it again.
        z: its latent, None where it has none.
    """

    number: int
    key: str
    crystal: Crystal
    title: str
    tags: tuple[str, ...]
    page: str
    provenance: dict[str, Any] = field(default_factory=dict)
    z: np.ndarray | None = None

    @property
    def formula(self) -> str:
        return formula(self.crystal.atomic_numbers)


def place() -> str:
    """The file or URL of the library."""
    given = os.environ.get(VARIABLE)
    return given or str(Path(platformdirs.user_data_dir("cdvae")) / "library.db")


@contextmanager
def _opened() -> Iterator[Any]:
    from ase.db import connect

    where = place()
    url = "://" in where
    with _lock:
        try:
            if not url:
                Path(where).parent.mkdir(parents=True, exist_ok=True)
            with connect(where, **({} if url else {"type": "db"})) as database:
                yield database
        except ModuleNotFoundError as error:
            raise OutputError(
                f'the library {_shown(where)} needs its driver: pip install "cdvae[postgres]"'
            ) from error
        except Exception as error:  # of sqlite3 or a driver: locked, read-only, no such host
            why = " ".join(str(error).split())
            raise OutputError(f"the library {_shown(where)} cannot be used: {why}") from error


def _shown(where: str) -> str:
    """A place as it may be shown: without the password of a URL."""
    return re.sub(r"//([^/@:]*):[^@]*@", r"//\1@", where)


def save(
    crystal: Crystal,
    *,
    title: str,
    page: str,
    provenance: dict[str, Any],
    z: np.ndarray | None = None,
    tags: Sequence[str] = (),
    key: str | None = None,
) -> int:
    """Keep a crystal; the number of its entry.

    Args:
        key: of an entry that comes back; a new one else.

    Raises:
        OutputError: the library cannot be written.
    """
    data: dict[str, Any] = {
        "key": key or uuid4().hex,
        "title": title,
        "page": page,
        "tags": _clean(tags),
        "provenance": json.dumps(provenance),
    }
    if z is not None:
        data["z"] = np.asarray(z, dtype=np.float64)
    with _opened() as database:
        return int(database.write(to_atoms(crystal), data=data))


def entries(search: str = "") -> list[Entry]:
    """The entries in which every word of the search occurs, the newest first.

    A word is looked for in formula, title, tags, page and checkpoint.
    """
    if "://" not in place() and not Path(place()).exists():
        return []
    with _opened() as database:
        found = [_entry(row) for row in database.select(sort="-id")]
    words = plain(search).lower().split()
    return [entry for entry in found if all(word in _text(entry) for word in words)]


def get(number: int) -> Entry:
    """One entry.

    Raises:
        KeyError: there is none of that number.
    """
    with _opened() as database:
        rows = list(database.select(id=number))
    if not rows:
        raise KeyError(number)
    return _entry(rows[0])


def retag(number: int, title: str, tags: Sequence[str]) -> None:
    """Give an entry another title and other tags."""
    with _opened() as database:
        data = database.get(id=number).data
        database.update(number, data=data | {"title": title, "tags": _clean(tags)})


def remove(numbers: Sequence[int]) -> list[Entry]:
    """Take entries out; what is returned brings them back by `restore`."""
    with _opened() as database:
        gone = [_entry(database.get(id=number)) for number in numbers]
        database.delete(list(numbers))
    return gone


def restore(gone: Sequence[Entry]) -> None:
    """Undo a removal; the entries get new numbers and keep their keys."""
    for entry in gone:
        save(
            entry.crystal, title=entry.title, page=entry.page, provenance=entry.provenance,
            z=entry.z, tags=entry.tags, key=entry.key,
        )  # fmt: skip


def _clean(tags: Sequence[str]) -> list[str]:
    return sorted({tag.strip().lower() for tag in tags if tag.strip()})


def _entry(row: Any) -> Entry:
    data = row.data
    z = data.get("z")
    return Entry(
        row.id,
        str(data.get("key", row.id)),
        Crystal(row.numbers, np.linalg.solve(row.cell.T, row.positions.T).T, np.array(row.cell)),
        str(data.get("title", "")),
        tuple(data.get("tags", ())),
        str(data.get("page", "")),
        json.loads(data.get("provenance", "{}")),
        None if z is None else np.asarray(z, dtype=np.float32),
    )


def _text(entry: Entry) -> str:
    known = entry.provenance.get("checkpoint", "")
    words = [entry.formula, entry.title, *entry.tags, entry.page, str(known)]
    return plain(" ".join(words)).lower()
