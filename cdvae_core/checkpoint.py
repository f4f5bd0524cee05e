"""A trained model in a folder: `model.safetensors`, `config.json` and `card.md`.

Nothing is unpickled. `config.json` holds what the weights mean: the model's configuration, its
scalers, noise schedules and element list, the fingerprint of the data, the version of this code
and the seed. Files are written beside their place and renamed, so none is ever half-written; both
carry the identity of the save, so that a save cut off between the two is found out.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import nn

from cdvae_core import __version__
from cdvae_core.config import ModelConfig, from_dict, to_dict
from cdvae_core.crystal import SYMBOLS
from cdvae_core.errors import CheckpointError, ConfigError
from cdvae_core.files import write_atomically
from cdvae_core.model import CDVAE
from cdvae_core.scalers import Scalers

FORMAT = 2
_WEIGHTS, _CONFIG = "model.safetensors", "config.json"


def save(model: CDVAE, path: str | Path, half: bool = False) -> None:
    """Write weights, configuration and provenance into a folder, which is made if need be.

    Args:
        half: the trained weights in half precision; they are read, and computed with, in single.
    """
    write(
        Path(path),
        state_of(model, half),
        {
            "model": to_dict(model.config),
            "scalers": asdict(model.scalers),
            "elements": SYMBOLS[1:],
            "provenance": model.provenance,
        },
    )


def state_of(model: nn.Module, half: bool) -> dict[str, torch.Tensor]:
    """Everything that a model is restored from, its trained weights in half precision if asked."""
    state = dict(model.state_dict())
    if half:
        state |= {name: weight.half() for name, weight in model.named_parameters()}
    return state


def write(folder: Path, state: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
    """Tensors and what they mean into a folder, both with the identity of this save."""
    folder.mkdir(parents=True, exist_ok=True)
    weights, identity = _plain(state), identity_of(state)
    head = {"format": FORMAT, "weights": identity, "code_version": __version__}
    write_atomically(folder / _WEIGHTS, to_bytes(weights, {"id": identity}))
    write_atomically(folder / _CONFIG, (json.dumps(head | config, indent=2) + "\n").encode())


def identity_of(state: dict[str, torch.Tensor]) -> str:
    """Of weights, as `config.json` has it: a hash of every tensor."""
    return hashlib.sha256(to_bytes(_plain(state))).hexdigest()


def _plain(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def load(path: str | Path, device: str = "cpu") -> CDVAE:
    """Read a model, in evaluation mode; `model.provenance` is what was saved with it.

    Raises:
        CheckpointError: the folder is missing, damaged, truncated, foreign or of another version.
    """
    folder = Path(path)
    config = read_config(folder)
    if is_baseline(config):
        raise CheckpointError(f"{folder} holds a {config['system']}, which has no CDVAE latents")
    try:
        model_config = from_dict(ModelConfig, config["model"])
        scalers = _scalers(config["scalers"])
        if config["elements"] != SYMBOLS[1:]:
            raise ConfigError("its elements are not those of this version")
    except (ConfigError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder / _CONFIG} does not describe a model: {error}") from error
    model = CDVAE(model_config, scalers)
    fill(model, read_weights(folder, config), folder)
    model.provenance = config.get("provenance", {})
    return model.to(device).eval()


def read_config(path: str | Path) -> dict[str, Any]:
    """The parsed `config.json` of a checkpoint, without its weights.

    Raises:
        CheckpointError: it is missing, no JSON, foreign or of another version.
    """
    file = Path(path) / _CONFIG
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckpointError(f"{path} is no checkpoint: it has no {_CONFIG}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file} is damaged: {error}") from error
    if not isinstance(config, dict) or "format" not in config:
        raise CheckpointError(f"{file} was not written by this project (it has no 'format')")
    if config["format"] != FORMAT:
        raise CheckpointError(
            f"{file} has format {config['format']!r}, this version reads {FORMAT}; "
            f"use the version of cdvae that wrote it ({config.get('code_version', 'unknown')})"
        )
    return config


def is_baseline(config: dict[str, Any]) -> bool:
    """Whether a `config.json` is that of a system that CDVAE is compared with."""
    return "system" in config


def read_weights(folder: Path, config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint.

    Raises:
        CheckpointError: they are missing, damaged, or of another save than the configuration.
    """
    file = folder / _WEIGHTS
    try:
        with safe_open(file, "pt") as opened:
            identity = (opened.metadata() or {}).get("id")
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} has no {_WEIGHTS}") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is damaged or truncated: {error}") from error
    if identity not in (None, config.get("weights")):
        raise CheckpointError(f"{folder}: {_WEIGHTS} and {_CONFIG} come from two different saves")
    return weights


def _scalers(values: dict[str, Any]) -> Scalers:
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    made = Scalers(**plain)
    for name, value in vars(made).items():
        count = 6 if name.startswith("lattice") else 1
        numbers = value if count == 6 else (value,)
        if len(numbers) != count or not all(
            isinstance(number, int | float) and math.isfinite(number) for number in numbers
        ):
            raise ConfigError(f"scalers.{name} is {value!r}")
    return made


def fill(model: nn.Module, weights: dict[str, torch.Tensor], folder: Path) -> None:
    """Weights into the model, where names and shapes agree exactly.

    Raises:
        CheckpointError: they do not, or a weight is not finite.
    """
    wanted = model.state_dict()
    missing, extra = sorted(wanted.keys() - weights.keys()), sorted(weights.keys() - wanted.keys())
    if missing or extra:
        name, what = (missing[0], "lacks") if missing else (extra[0], "has an unknown")
        raise CheckpointError(f"{folder / _WEIGHTS} does not fit its {_CONFIG}: it {what} '{name}'")
    for name, tensor in weights.items():
        if tensor.shape != wanted[name].shape:
            raise CheckpointError(
                f"{folder / _WEIGHTS}: '{name}' is {list(tensor.shape)}, "
                f"its {_CONFIG} says {list(wanted[name].shape)}"
            )
        if not bool(tensor.isfinite().all()):
            raise CheckpointError(f"{folder / _WEIGHTS}: '{name}' holds values that are not finite")
    model.load_state_dict(weights)
