"""A file that a person brings: parsed apart, within limits, and encoded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cdvae_core.crystal import Crystal
from cdvae_core.errors import StructureError

if TYPE_CHECKING:
    from torch import Tensor

    from cdvae_core.model import CDVAE

ROOT = Path(__file__).parents[2]
LARGEST = 1_000_000  # bytes
SECONDS = 30


def parse(content: bytes, name: str = "") -> tuple[Crystal, list[list]]:
    """A CIF or POSCAR as a Niggli cell, and its CrystalNN edges.

    Args:
        name: of the file; one that ends in .cif is read as such, any other by its looks.

    Raises:
        StructureError: too large, too slow, or no crystal.
    """
    if len(content) > LARGEST:
        raise StructureError(f"the file has {len(content):,} bytes; up to {LARGEST:,} are read")
    command = [sys.executable, "-m", "app.services.parse_upload"]
    command += ["cif"] if name.lower().endswith(".cif") else []
    try:
        done = subprocess.run(
            command, input=content, capture_output=True, timeout=SECONDS, cwd=ROOT, check=True
        )
        answer = json.loads(done.stdout)
    except subprocess.TimeoutExpired as error:
        raise StructureError(f"the file takes longer than {SECONDS} s to read") from error
    except (subprocess.CalledProcessError, json.JSONDecodeError) as error:
        raise StructureError("the file cannot be read as a crystal") from error
    if "error" in answer:
        raise StructureError(answer["error"])
    edges = answer.pop("edges")
    return Crystal(**{name: np.array(value) for name, value in answer.items()}), edges


def encode(model: CDVAE, crystal: Crystal, edges: list[list]) -> Tensor:
    """mu of a parsed crystal, `[latent]`.

    Raises:
        StructureError: more atoms than the checkpoint knows.
    """
    from cdvae_core.encode import encode_crystal

    most = model.config.max_atoms
    if crystal.num_atoms > most:
        raise StructureError(
            f"this crystal has {crystal.num_atoms} atoms, but the checkpoint was made for up to "
            f"{most}"
        )
    return encode_crystal(model, crystal, edges)
