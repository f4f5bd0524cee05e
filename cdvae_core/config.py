"""What a model is made of. Frozen and validated: an unknown key is an error, not a surprise.

Defaults are the published sizes (Appendix F, and conf/ of the published code).
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_type_hints

from cdvae_core.errors import ConfigError

T = TypeVar("T")
MAX_SEED = 2**31 - 1  # so that what is made of it still fits a generator


def check_positive(section: Any, where: str, *but_zero: str) -> None:
    """Every number of a section is above zero, those of `but_zero` at least zero.

    Raises:
        ConfigError: one is not.
    """
    for field_ in dataclasses.fields(section):
        value = getattr(section, field_.name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if not (value > 0 or (value == 0 and field_.name in but_zero)) or value == math.inf:
            least = "at least 0" if field_.name in but_zero else "above 0"
            raise ConfigError(f"{where}{field_.name} is {value}, but must be {least}")


@dataclass(frozen=True)
class EncoderConfig:
    """DimeNet++ over the CrystalNN multigraph (F.3)."""

    hidden: int = 128
    blocks: int = 4
    int_emb: int = 64
    basis_emb: int = 8
    out_emb: int = 256
    num_spherical: int = 7
    num_radial: int = 6
    cutoff: float = 7.0

    def __post_init__(self) -> None:
        check_positive(self, "encoder.")


@dataclass(frozen=True)
class DecoderConfig:
    """GemNet over the periodic KNN graph (F.2, F.3)."""

    hidden: int = 128
    blocks: int = 3
    neighbours: int = 20
    cutoff: float = 7.0
    num_spherical: int = 7
    num_radial: int = 128
    radial_width: float = 0.35  # Å
    basis_emb: int = 16
    triplet_emb: int = 64
    quadruplets: bool = False

    def __post_init__(self) -> None:
        check_positive(self, "decoder.")
        if self.neighbours > 64:
            raise ConfigError(f"decoder.neighbours is {self.neighbours}, but must be at most 64")


@dataclass(frozen=True)
class NoiseConfig:
    """The two geometric sequences of noise levels (D.3), from the first to the last."""

    levels: int = 50
    sigma_first: float = 10.0  # Å
    sigma_last: float = 0.01  # Å
    type_sigma_first: float = 5.0
    type_sigma_last: float = 0.01

    def __post_init__(self) -> None:
        check_positive(self, "noise.")


@dataclass(frozen=True)
class LossWeights:
    """Weights of the loss terms, as published; `counts` is not in the paper (`losses`)."""

    num_atoms: float = 1.0
    lattice: float = 10.0
    composition: float = 1.0
    coordinates: float = 10.0
    types: float = 1.0
    kl: float = 0.01
    prop: float = 1.0
    counts: float = 0.0

    def __post_init__(self) -> None:
        check_positive(self, "losses.", *(f.name for f in dataclasses.fields(self)))


@dataclass(frozen=True)
class ModelConfig:
    """Everything that the shape of the weights and the meaning of the outputs depend on.

    `encode_aggregates` lets the encoder see what MLP_AGG has to tell from z: N, the lattice and the
    composition. A mean over atoms, as published, cannot count them. `linear_aggregates` reads the
    three from z by linear maps instead of the published networks.
    """

    latent_dim: int = 256
    head_hidden: int = 256
    max_atoms: int = 20
    prop: str | None = None
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    encode_aggregates: bool = False
    linear_aggregates: bool = False

    def __post_init__(self) -> None:
        check_positive(self, "")


def from_dict(cls: type[T], values: dict[str, Any], where: str = "") -> T:
    """A (nested) config dataclass from plain values.

    Raises:
        ConfigError: a key is unknown, or a value has another type than the field.
    """
    hints = get_type_hints(cls)
    known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    made: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f"unknown key '{where}{key}'; known here: {', '.join(sorted(known))}")
        if dataclasses.is_dataclass(hints[key]):
            if not isinstance(value, dict):
                raise ConfigError(f"'{where}{key}' is {value!r}, but must be a section of keys")
            made[key] = from_dict(hints[key], value, f"{where}{key}.")
        else:
            made[key] = _checked(hints[key], value, where + key)
    return cls(**made)


def _checked(hint: Any, value: Any, where: str) -> Any:
    """The value as the field's type, where the change loses nothing (1 -> 1.0)."""
    allowed = getattr(hint, "__args__", (hint,))
    if float in allowed and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if float in allowed and isinstance(value, str):  # YAML reads 1e-3, without a dot, as text
        with contextlib.suppress(ValueError):
            return float(value)
    if isinstance(value, bool) and bool not in allowed:
        raise ConfigError(f"'{where}' is {value!r}, but must be {hint}")
    if isinstance(value, tuple(t for t in allowed if isinstance(t, type))):
        return value
    raise ConfigError(
        f"'{where}' is {value!r}, but must be of type {getattr(hint, '__name__', hint)}"
    )


def to_dict(config: Any) -> dict[str, Any]:
    return dataclasses.asdict(config)
