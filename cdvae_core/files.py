"""Files that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

from cdvae_core.errors import OutputError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the whole new one.

    Raises:
        OutputError: the folder or the disk does not take it; the old content stays.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
