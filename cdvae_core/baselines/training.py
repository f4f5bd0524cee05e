"""Training a system on `cdvae_core.trainer`: AdamW, warm-up and cosine, averaged weights.

The systems' own papers use RMSprop, or Adam with a plateau, over hundreds of epochs; one recipe for
all makes them comparable at equal time.
"""

from __future__ import annotations

import math
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cdvae_core.allocator import keep_freed_memory
from cdvae_core.baselines.checkpoint import class_of, load, system_of
from cdvae_core.baselines.protocol import Baseline, Batch, Learns
from cdvae_core.data.cache import CachedSplit, open_split
from cdvae_core.errors import ConfigError
from cdvae_core.experiment import BaselineExperiment, BasicRecipe
from cdvae_core.trainer import (
    VALIDATION_SEED,
    TrainingRun,
    check_fits,
    check_new_or_resumed,
    fit,
    provenance,
)


class BaselineTraining(TrainingRun):
    """The training and validation steps of a system.

    Args:
        model: to be trained.
        recipe: how.
        train, val: splits of the cache.
    """

    def __init__(
        self, model: Baseline, recipe: BasicRecipe, train: CachedSplit, val: CachedSplit
    ) -> None:
        super().__init__(model, recipe, train)
        assert isinstance(model, Learns)
        self.examples = {"train": model.examples(train), "val": model.examples(val)}

    def train_dataloader(self) -> DataLoader:
        return self._loader("train", sampler=self.order())

    def val_dataloader(self) -> DataLoader:
        return self._loader("val")

    def _loader(self, split: str, **options: Any) -> DataLoader:
        examples: Dataset = self.examples[split]
        return DataLoader(examples, self.recipe.micro_batch, collate_fn=_same, **options)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        step = self.trainer.fit_loop.total_batch_idx
        return self._losses("train", batch, self.recipe.seed + 1, step)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._losses("val", batch, VALIDATION_SEED, batch_idx)

    def _losses(self, part: str, batch: Batch, seed: int, step: int) -> Tensor:
        progress = self.current_epoch / self.recipe.epochs
        values = self.model.losses(batch, self.generator(seed, step), progress)
        total = torch.stack(list(values.values())).sum()
        self.log_losses(part, values, total, len(next(iter(batch.values()))))
        return total

    def _rate(self, step: int, total: int) -> float:
        """Each stage of a system has a warm-up and a cosine of its own."""
        epochs = self.recipe.epochs
        turns = [round(total * math.ceil(part * epochs) / epochs) for part in self.model.stages]
        for first, last in pairwise([0, *turns, total]):
            if step < last:
                return super()._rate(step - first, last - first)
        return super()._rate(total, total)

    def make_optimiser(self) -> torch.optim.AdamW:
        return torch.optim.AdamW(self.model.parameters(), self.recipe.learning_rate)


def _same(batch: Any) -> Batch:
    return batch


def train(
    experiment: BaselineExperiment,
    run: Path,
    *,
    max_time: timedelta | None = None,
    resume: bool = False,
    init: Path | None = None,
    **trainer_options: Any,
) -> Path:
    """Train, and leave the averaged model in `run/model`, as `cdvae_core.train.train` does.

    A system that does not learn is saved as it was built.

    Raises:
        ConfigError: nothing to resume, or settings that do not fit the dataset.
        DatasetError: the dataset's cache is missing.
        TrainingError: too many steps were not finite.
    """
    recipe = experiment.recipe
    check_new_or_resumed(run, resume)
    keep_freed_memory()
    train_split, val_split = (open_split(experiment.dataset, name) for name in ("train", "val"))
    model = _begin(experiment, train_split, init)
    known = provenance(experiment.dataset, train_split, recipe)
    if not isinstance(model, Learns):
        model.provenance = known
        model.save(run / "model")
        return run / "model"
    module = BaselineTraining(model, recipe, train_split, val_split)
    module.initialised_from = str(init) if init else None
    return fit(module, run, known, max_time=max_time, resume=resume, **trainer_options)


def _begin(experiment: BaselineExperiment, split: CachedSplit, init: Path | None) -> Baseline:
    """A new model for the training split, its weights drawn or taken from `init`.

    Raises:
        ConfigError: the model cannot hold the crystals, or `init` is of another model.
    """
    check_fits(experiment.model, split)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(experiment.recipe.seed)
        model = class_of(experiment.system).build(experiment.model, split)
    if init is not None:
        earlier = load(init)
        if type(earlier) is not type(model):
            raise ConfigError(f"{init} holds a {system_of(earlier)}, not a {experiment.system}")
        if earlier.config != experiment.model:
            raise ConfigError(f"{init} was made with another model section than this experiment's")
        of_data = dict(model.named_buffers(recurse=False))  # the new split's stay
        state = earlier.state_dict()
        model.load_state_dict({k: v for k, v in state.items() if k not in of_data}, strict=False)
    return model
