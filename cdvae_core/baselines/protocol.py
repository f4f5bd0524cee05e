"""What a system is, so that the commands and the dashboard take any of them.

A crystal that a system could not make is a `StructureError` in its place: it is data, to be counted
and named, and stops nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from cdvae_core.baseline_configs import BaselineConfig
from cdvae_core.crystal import Crystal
from cdvae_core.data.cache import CachedSplit
from cdvae_core.errors import StructureError
from cdvae_core.optimise import Goal

Made = Crystal | StructureError
Batch = dict[str, Tensor]


class Baseline(nn.Module, ABC):
    """A generative model of crystals.

    What it knows of its training data besides its weights (scalers, prototypes) are buffers, so the
    state dict is all there is to save.

    Attributes:
        config: what the shapes depend on.
        provenance: what is known of its training.
        varying: names of buffers whose shape depends on the training data.
        stages: parts of the training, 0 to 1, at which another part of the system is trained; the
            learning rate then begins anew.
    """

    varying: ClassVar[tuple[str, ...]] = ()
    stages: tuple[float, ...] = ()

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__()
        self.config = config
        self.provenance: dict[str, Any] = {}

    @property
    def device(self) -> torch.device:
        return next(iter(self.state_dict().values())).device

    @classmethod
    @abstractmethod
    def build(cls, config: Any, train: CachedSplit) -> Baseline:
        """A new model for a training split, what it takes from the data filled in.

        Raises:
            ConfigError: the configuration cannot hold these crystals.
        """

    @abstractmethod
    def sample(self, count: int, generator: torch.Generator) -> Iterator[Made]:
        """New crystals, as they come."""

    def save(self, path: str | Path) -> None:
        """Write the model into a folder, which is made if need be."""
        from cdvae_core.baselines import checkpoint

        checkpoint.save(self, path)


@runtime_checkable
class Learns(Protocol):
    """A system with weights to be trained."""

    def examples(self, split: CachedSplit) -> Dataset[Batch]:
        """What a training step reads; `__getitems__` of indices gives a whole batch.

        The first entry of a batch has one row for each crystal.
        """

    def losses(
        self, batch: Batch, generator: torch.Generator, progress: float
    ) -> dict[str, Tensor]:
        """The terms by name; their sum is to become small.

        Args:
            generator: of every draw.
            progress: the part of the training that is done, 0 to 1.
        """


@runtime_checkable
class Reconstructs(Protocol):
    """A system with an encoder."""

    def reconstruct(
        self, split: CachedSplit, places: Sequence[int], generator: torch.Generator
    ) -> Iterator[Made]:
        """Some crystals of a split, encoded and decoded again, in order."""


@runtime_checkable
class Optimises(Protocol):
    """A system that can look for a better property."""

    def optimise(
        self,
        split: CachedSplit,
        places: Sequence[int],
        goal: Goal,
        kept: int,
        generator: torch.Generator,
    ) -> Iterator[list[Made]]:
        """Crystals with a better property, from some crystals of a split: `kept` for each.

        Yields:
            one crystal for each start, `kept` times.
        """
