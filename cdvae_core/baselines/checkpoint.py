"""A trained system in a folder, in the form of CDVAE's own checkpoints.

`config.json` names the system; `model.safetensors` is its state dict. Weights may be stored in half
precision; they are computed with in single.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import torch

from cdvae_core import checkpoint
from cdvae_core.baseline_configs import SYSTEMS, config_of
from cdvae_core.baselines.protocol import Baseline
from cdvae_core.config import from_dict, to_dict
from cdvae_core.errors import CheckpointError, ConfigError

_CLASSES = {
    "ftcp": "FTCP",
    "dfc_vae": "DFCVAE",
    "gschnet": "GSchNet",
    "p_gschnet": "PGSchNet",
    "substitution": "Substitution",
}


def class_of(system: str) -> type[Baseline]:
    """The class of a system; its module is read only now.

    Raises:
        ConfigError: no system has that name.
    """
    config_of(system)
    return getattr(import_module(f"cdvae_core.baselines.{system}"), _CLASSES[system])


def system_of(model: Baseline) -> str:
    """The name of a model's system."""
    return next(name for name, config in SYSTEMS.items() if type(model.config) is config)


def save(model: Baseline, path: str | Path, half: bool = False) -> None:
    """Write weights, configuration and provenance into a folder, which is made if need be.

    Args:
        half: the trained weights in half precision.
    """
    config = {
        "system": system_of(model),
        "model": to_dict(model.config),
        "provenance": model.provenance,
    }
    checkpoint.write(Path(path), checkpoint.state_of(model, half), config)


def load(path: str | Path, device: str = "cpu") -> Baseline:
    """Read a system, in evaluation mode.

    Raises:
        CheckpointError: the folder is missing, damaged, truncated, foreign or of another version.
    """
    folder = Path(path)
    config = checkpoint.read_config(folder)
    if not checkpoint.is_baseline(config):
        raise CheckpointError(f"{folder} holds no {' or '.join(SYSTEMS)}, but a CDVAE")
    try:
        cls = class_of(config["system"])
        model = cls(from_dict(config_of(config["system"]), config["model"]))
    except (ConfigError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder} does not describe a system: {error}") from error
    weights = checkpoint.read_weights(folder, config)
    weights = {k: v.float() if v.dtype == torch.float16 else v for k, v in weights.items()}
    for name in cls.varying:
        if name in weights:
            model.register_buffer(name, torch.empty_like(weights[name]))
    checkpoint.fill(model, weights, folder)
    model.provenance = config.get("provenance", {})
    return model.to(device).eval()
