"""One experiment: a dataset, a model, loss weights and a recipe, from a YAML file and overrides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from cdvae_core.baseline_configs import BaselineConfig, config_of
from cdvae_core.config import MAX_SEED, LossWeights, ModelConfig, check_positive, from_dict
from cdvae_core.errors import ConfigError


@dataclass(frozen=True)
class BasicRecipe:
    """How a model is trained, whatever it is.

    Attributes:
        epochs: passes over the training split; the learning rate falls to its floor over them.
        batch_size: crystals per optimiser step and process.
        micro_batch: crystals that are computed at once; their gradients add up to the batch. On a
            CPU a micro-batch that fits its cache is several times faster.
        learning_rate, final_learning_rate: after the warm-up, and at the end of the cosine.
        warmup_steps: optimiser steps over which the learning rate rises.
        clip_norm: of the gradient.
        ema_decay: of the averaged weights, which are what is saved and validated; less at first.
        validate_every: epochs between validations.
        precision: "32-true", "bf16-mixed" or another of Lightning's.
        max_skipped: steps with a non-finite gradient that are skipped before it is an error.
        seed: of the weights, the order of crystals and the draws of each step.
    """

    epochs: int = 1000
    batch_size: int = 256
    micro_batch: int = 32
    learning_rate: float = 5e-3
    final_learning_rate: float = 1e-5
    warmup_steps: int = 200
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    validate_every: int = 5
    precision: str = "32-true"
    max_skipped: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        check_positive(
            self, "recipe.", "seed", "warmup_steps", "final_learning_rate", "max_skipped",
            "teacher_forcing_epochs", "ema_decay", "shuffled_types",
        )  # fmt: skip
        if self.seed > MAX_SEED:
            raise ConfigError(f"recipe.seed is {self.seed}, but must be at most {MAX_SEED}")
        for name in ("ema_decay", "shuffled_types"):
            share = getattr(self, name, 0.0)
            if share > 1:
                raise ConfigError(f"recipe.{name} is {share}, but must be at most 1")
        if self.batch_size % self.micro_batch:
            raise ConfigError(
                f"recipe.batch_size {self.batch_size} is no multiple of "
                f"recipe.micro_batch {self.micro_batch}"
            )


@dataclass(frozen=True)
class Recipe(BasicRecipe):
    """How CDVAE is trained. The learning rate is Muon's (see `optimiser`).

    Attributes:
        noise_draws: noisy copies of each crystal per encoding.
        shuffled_types: share of the crystals whose types are shuffled rather than drawn anew from
            the composition (`noise.shuffle_types`).
        teacher_forcing_epochs: epochs in which noise is added in the true lattice; null for all.
        compile: torch.compile the decoder; takes a minute at the start, pays where all crystals
            have equally many atoms and for bf16 (benchmarks/README.md).
        matmul: "highest", or "high" for TF32 on a GPU.
    """

    noise_draws: int = 1
    shuffled_types: float = 0.0
    teacher_forcing_epochs: int | None = None
    compile: bool = False
    matmul: str = "highest"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.matmul not in ("highest", "high", "medium"):
            raise ConfigError(f"recipe.matmul is '{self.matmul}': choose highest, high or medium")


@dataclass(frozen=True)
class Experiment:
    """Everything that `cdvae train` needs to know.

    Attributes:
        dataset: a name in the registry, or a path to the user's own crystals.
    """

    dataset: str
    model: ModelConfig = field(default_factory=ModelConfig)
    losses: LossWeights = field(default_factory=LossWeights)
    recipe: Recipe = field(default_factory=Recipe)


@dataclass(frozen=True)
class BaselineExperiment:
    """An experiment on one of the systems that CDVAE is compared with.

    Attributes:
        system: one of `baseline_configs.SYSTEMS`.
        dataset: a name in the registry, or a path to the user's own crystals.
        model: the system's own configuration.
    """

    system: str
    dataset: str
    model: BaselineConfig
    recipe: BasicRecipe = field(default_factory=BasicRecipe)


def names() -> list[str]:
    """The experiments in the package."""
    folder = resources.files("cdvae_core") / "configs"
    return sorted(p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name[-5:] == ".yaml")


def read(config: str, overrides: Sequence[str] = ()) -> Experiment | BaselineExperiment:
    """An experiment by its name in the package or the path of a YAML file.

    Args:
        overrides: `section.key=value`, the value in YAML.

    Raises:
        ConfigError: no such experiment, no valid YAML, an unknown key or a wrong value.
    """
    values = _parse(config)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise ConfigError(
                f"'{override}' is no override; write key=value, as in recipe.epochs=10"
            )
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"'{override}': the value is no valid YAML") from error
        _set(values, key.split("."), value, override)
    if "dataset" not in values:
        raise ConfigError(f"'{config}' names no dataset; add the line 'dataset: perov_like'")
    return _baseline(values) if "system" in values else from_dict(Experiment, values)


def _baseline(values: dict[str, Any]) -> BaselineExperiment:
    model = values.pop("model", {})
    if not isinstance(model, dict):
        raise ConfigError(f"'model' is {model!r}, but must be a section of keys")
    config = from_dict(config_of(values["system"]), model, "model.")
    known = {"model", *(f.name for f in fields(_System))}
    if unknown := sorted(values.keys() - known):
        raise ConfigError(f"unknown key '{unknown[0]}'; known here: {', '.join(sorted(known))}")
    rest = from_dict(_System, values)
    return BaselineExperiment(rest.system, rest.dataset, config, rest.recipe)


@dataclass(frozen=True)
class _System:
    """The sections of a baseline's experiment that are the same for all."""

    system: str
    dataset: str
    recipe: BasicRecipe = field(default_factory=BasicRecipe)


def _parse(config: str) -> dict[str, Any]:
    packaged = resources.files("cdvae_core") / "configs" / f"{config}.yaml"
    path = Path(config)
    if config in names():
        text = packaged.read_text(encoding="utf-8")
    elif path.suffix in (".yaml", ".yml") and path.is_file():
        text = path.read_text(encoding="utf-8", errors="replace")
    else:
        raise ConfigError(
            f"no experiment '{config}': give a YAML file or one of {', '.join(names())}"
        )
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"'{config}' is no valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"'{config}' holds no keys and values")
    return values


def _set(values: dict[str, Any], keys: list[str], value: Any, override: str) -> None:
    for key in keys[:-1]:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise ConfigError(f"'{override}': '{key}' is no section")
    values[keys[-1]] = value
