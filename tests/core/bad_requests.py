"""Run by itself: what the package says to bad requests while no type checker looks on.

Prints one JSON object, from the name of a request to the error's type and message.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from examples import small_model

from cdvae_core import CDVAE
from cdvae_core.langevin import Schedule, sample

CELLS = 4 * torch.eye(3).repeat(2, 1, 1)


def requests() -> dict[str, dict[str, object]]:
    ones = torch.tensor([1, 1])
    return {
        "unknown schedule": {"schedule": "slow"},
        "empty schedule": {"schedule": Schedule((), 3, 1e-4)},
        "too few num_atoms": {"num_atoms": torch.tensor([5])},
        "no atoms": {"num_atoms": torch.tensor([5, 0])},
        "too many atoms": {"num_atoms": torch.tensor([5, 37])},
        "types without num_atoms": {"atomic_numbers": torch.tensor([6, 6])},
        "too few types": {
            "num_atoms": torch.tensor([1, 2]), "atomic_numbers": torch.tensor([6, 6])
        },
        "type 101": {"num_atoms": ones, "atomic_numbers": torch.tensor([6, 101])},
        "type 0": {"num_atoms": ones, "atomic_numbers": torch.tensor([6, 0])},
        "one lattice for two": {"lattice": CELLS[:1]},
        "lattice of NaN": {"lattice": CELLS * math.nan},
        "lattice without volume": {"lattice": CELLS * 0},
        "z of another width": {"z": torch.zeros(2, 8)},
        "z of one axis": {"z": torch.zeros(16)},
        "z of NaN": {"z": torch.full((2, 16), math.nan)},
    }  # fmt: skip


def configs() -> dict[str, tuple[tuple[str, ...], object]]:
    """The key that is changed, and to what."""
    return {
        "latent_dim wide": (("model", "latent_dim"), "wide"),
        "latent_dim -4": (("model", "latent_dim"), -4),
        "unknown key": (("model", "layers"), 3),
        "no decoder": (("model", "decoder"), None),
        "hidden 0": (("model", "decoder", "hidden"), 0),
        "no model": (("model",), []),
        "foreign scalers": (("scalers",), {"mean": 1}),
        "no scalers": (("scalers",), None),
        "two lattice means": (("scalers", "lattice_mean"), [1.0, 2.0]),
        "words for deviations": (("scalers", "lattice_std"), ["a"] * 6),
        "no prop_mean": (("scalers", "prop_mean"), None),
        "prop_std NaN": (("scalers", "prop_std"), math.nan),
        "other elements": (("elements",), ["C", "Si"]),
    }


def said(call: Callable[[], object]) -> list[str]:
    try:
        call()
    except Exception as error:  # whatever it is, is what this script reports
        return [type(error).__name__, str(error)]
    return ["nothing", ""]


def with_config(folder: Path, keys: tuple[str, ...], value: object) -> Path:
    copy = folder.parent / "changed"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    section = config
    for key in keys[:-1]:
        section = section[key]
    section[keys[-1]] = value
    (copy / "config.json").write_text(json.dumps(config))
    return copy


def main() -> None:
    model, found = small_model(0), {}
    for name, options in requests().items():
        given = {"z": torch.zeros(2, 16), **options}
        generator = torch.Generator().manual_seed(0)
        found[name] = said(lambda g=given, r=generator: sample(model, generator=r, **g))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        model.save(folder)
        for name, (keys, value) in configs().items():
            copy = with_config(folder, keys, value)
            found[name] = said(lambda c=copy: CDVAE.load(c))
    step = next(iter(sample(model, torch.zeros(1, 16, requires_grad=True),
                            schedule="fast", generator=torch.Generator())))  # fmt: skip
    found["gradient"] = [str(step.crystals.frac_coords.requires_grad), ""]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
