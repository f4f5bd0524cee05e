"""What every training shares: its clock, its schedule, its state, and the averaged weights.

`cdvae_core.train` trains CDVAE by it, `cdvae_core.baselines.training` the systems it is compared
with. Every draw of a step comes from a generator seeded by the recipe's seed and the step's number,
and the order of crystals from the seed and the epoch's, so a resumed run repeats the losses of one
that was never interrupted.
"""

from __future__ import annotations

import logging
import math
import platform
import time
import warnings
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, WeightAveraging
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor, nn

from cdvae_core.baseline_configs import BaselineConfig
from cdvae_core.config import ModelConfig, to_dict
from cdvae_core.data.cache import CachedSplit
from cdvae_core.data.loader import ShardedOrder
from cdvae_core.errors import ConfigError, TrainingError
from cdvae_core.experiment import BasicRecipe

log = logging.getLogger(__name__)

STATE = "last.ckpt"
VALIDATION_SEED = 20211
_SECONDS_BETWEEN_STATES = 300


class TrainingRun(L.LightningModule):
    """The schedule of the learning rate, clipping, and what is kept of a run.

    A subclass adds the loaders, the steps and the optimiser.

    Args:
        model: to be trained; has `config`, `provenance` and `save`.
        recipe: how.
        train: the training split.
    """

    model: Any  # a subclass says which

    def __init__(self, model: nn.Module, recipe: BasicRecipe, train: CachedSplit) -> None:
        super().__init__()
        self.model, self.recipe = model, recipe
        self.crystals, self.data = len(train), train.fingerprint
        self.skipped = 0
        self.initialised_from: str | None = None  # the checkpoint that the weights came from
        self.seconds = 0.0  # spent in earlier parts of a resumed run
        self._resume_skip = 0

    @abstractmethod
    def make_optimiser(self) -> torch.optim.Optimizer: ...

    def order(self) -> ShardedOrder:
        """The order of the training split in each epoch, on this process.

        Raises:
            ConfigError: a batch is more than the split has.
        """
        recipe = self.recipe
        world, rank = self.trainer.world_size, self.trainer.global_rank
        order = ShardedOrder(self.crystals, recipe.batch_size, recipe.seed, world, rank)
        if not len(order):
            raise ConfigError(
                f"recipe.batch_size {recipe.batch_size} exceeds the {self.crystals} crystals of "
                f"the training split on {world} process(es)"
            )
        order.skip = self._resume_skip * recipe.micro_batch
        return order

    def generator(self, seed: int, step: int) -> torch.Generator:
        """Of the draws of one step on this process."""
        world, rank = self.trainer.world_size, self.trainer.global_rank
        generator = torch.Generator(self.device)
        return generator.manual_seed(seed * 1_000_000_007 + step * world + rank)

    def log_losses(
        self, part: str, values: dict[str, Tensor], total: Tensor, crystals: int
    ) -> None:
        """Every term and the total, in training by the step, in validation by the epoch."""
        on_step = part == "train"
        self.log_dict(
            {f"{part}/{name}": value.detach() for name, value in values.items()}
            | {f"{part}/loss": total},
            on_step=on_step,
            on_epoch=not on_step,
            batch_size=crystals,
            sync_dist=not on_step,
        )
        self.log(
            "loss" if on_step else "val_loss",
            total,
            prog_bar=True,
            logger=False,
            on_step=on_step,
            on_epoch=not on_step,
            batch_size=crystals,
            sync_dist=not on_step,
        )

    def configure_optimizers(self) -> Any:
        optimiser = self.make_optimiser()
        total = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda s: self._rate(s, total))
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _rate(self, step: int, total: int) -> float:
        """Linear warm-up, then half a cosine to the floor, as a factor of the learning rate."""
        recipe = self.recipe
        if step < recipe.warmup_steps:
            return (step + 1) / recipe.warmup_steps
        done = (step - recipe.warmup_steps) / max(1, total - recipe.warmup_steps)
        floor = recipe.final_learning_rate / recipe.learning_rate
        return floor + (1 - floor) * (1 + math.cos(math.pi * min(1.0, done))) / 2

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by norm; a step whose gradient is not finite is left out and counted."""
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        if bool(norm.isfinite()):
            return
        self.skipped += 1
        log.warning("step %d: the gradient is not finite; step skipped", self.global_step)
        if self.skipped > self.recipe.max_skipped:
            raise TrainingError(
                f"{self.skipped} steps had a gradient that is not finite; lower "
                "recipe.learning_rate, or raise recipe.max_skipped to go on regardless"
            )
        optimizer.zero_grad(set_to_none=True)

    def on_train_start(self) -> None:
        self._since = time.monotonic()

    def spent(self) -> float:
        """Seconds of training, over all resumed parts."""
        return self.seconds + time.monotonic() - self._since

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["cdvae"] = {
            "system": type(self.model).__name__,
            "data": self.data,
            "model": to_dict(self.model.config),
            "skipped": self.skipped,
            "seconds": self.spent(),
            "initialised_from": self.initialised_from,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.skipped = checkpoint["cdvae"]["skipped"]
        self.seconds = checkpoint["cdvae"]["seconds"]
        self.initialised_from = checkpoint["cdvae"].get("initialised_from")
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        if not progress["is_last_batch"]:
            self._resume_skip = progress["current"]["processed"]


Weights = tuple[Tensor, ...] | list[Tensor]


def moving_average(decay: float) -> Callable[[Weights, Weights, Tensor | int], None]:
    """An exponential moving average that forgets the random start: it is short at first.

    After n steps it goes back over n / 9 of them, until `decay` limits it. With a constant 0.999 a
    tenth of the average would still be the initial weights after 2,300 steps.
    """

    @torch.no_grad()
    def update(averaged: Weights, current: Weights, count: Tensor | int) -> None:
        steps = float(count)
        kept = min(decay, (1 + steps) / (10 + steps))
        torch._foreach_lerp_(averaged, current, 1 - kept)

    return update


class ModelKeeper(Callback):
    """Writes the averaged weights into `run/model` after each validation and at the end.

    In validation the averaging callback has swapped them in; at the end `StateKeeper`, which runs
    after that callback, calls `save` once they are in for good.
    """

    def __init__(self, run: Path, provenance: dict[str, Any]) -> None:
        self.run, self.provenance = run, provenance

    def on_validation_epoch_end(  # type: ignore[override]  # it is the module of this run
        self, trainer: L.Trainer, module: TrainingRun
    ) -> None:
        self.save(trainer, module)

    def save(self, trainer: L.Trainer, module: TrainingRun) -> None:
        if not trainer.is_global_zero:
            return
        module.model.provenance = self.provenance | {
            "initialised_from": module.initialised_from,
            "hardware": _hardware(module.device, trainer.world_size),
            "epochs": trainer.current_epoch,
            "steps": trainer.global_step,
            "training_seconds": round(module.spent()),
            "skipped_steps": module.skipped,
        }
        module.model.save(self.run / "model")


def _hardware(device: torch.device, processes: int) -> str:
    """What a run used, in words for its card."""
    if device.type == "cuda":
        place = torch.cuda.get_device_name(device)
    else:
        place = f"{torch.get_num_threads()} CPU thread(s) ({platform.machine()})"
    return f"{processes} process(es), each on {place}; torch {torch.__version__}"


class StateKeeper(Callback):
    """Writes the whole state between two optimiser steps, every few minutes and at the end.

    Lightning's own timer and checkpoints may stop between micro-batches, where a resumed run would
    have lost half a step's gradients. It stands after the averaging callback.
    """

    def __init__(self, run: Path, keeper: ModelKeeper, max_time: timedelta | None) -> None:
        self.run, self.keeper = run, keeper
        self.deadline = time.monotonic() + (
            math.inf if max_time is None else max_time.total_seconds()
        )
        self.saved = time.monotonic()

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: L.Trainer, module: TrainingRun, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        now = time.monotonic()
        stop = trainer.strategy.reduce_boolean_decision(now > self.deadline, all=False)
        ending = trainer.is_last_batch and trainer.current_epoch + 1 == trainer.max_epochs
        due = ending or now - self.saved > _SECONDS_BETWEEN_STATES
        if stop or trainer.strategy.reduce_boolean_decision(due, all=False):
            trainer.save_checkpoint(self.run / STATE, weights_only=False)  # the optimiser's, too
            self.saved = time.monotonic()
        trainer.should_stop = trainer.should_stop or stop

    def on_train_end(  # type: ignore[override]
        self, trainer: L.Trainer, module: TrainingRun
    ) -> None:
        self.keeper.save(trainer, module)


def check_fits(config: ModelConfig | BaselineConfig, train: CachedSplit) -> None:
    """Whether a model can hold and learn the crystals of a dataset.

    Raises:
        ConfigError: a crystal has too many atoms, or the property is none of the dataset's.
    """
    dataset, largest = train.info.dataset, int(train.num_atoms.max())
    if largest > config.max_atoms:
        raise ConfigError(
            f"model.max_atoms is {config.max_atoms}, but '{dataset}' has crystals of {largest} "
            f"atoms; set model.max_atoms={largest}"
        )
    if config.prop is not None and config.prop not in train.properties:
        known = ", ".join(train.properties) or "no property"
        raise ConfigError(f"model.prop is '{config.prop}', but '{dataset}' has {known}")


def provenance(dataset: str, train: CachedSplit, recipe: BasicRecipe) -> dict[str, Any]:
    """What a model says of its training, before there has been any."""
    return {
        "dataset": dataset,
        "data_fingerprint": train.fingerprint,
        "data_notes": list(train.info.notes),
        "train_crystals": len(train),
        "seed": recipe.seed,
        "recipe": asdict(recipe),
    }


def check_new_or_resumed(run: Path, resume: bool) -> None:
    """A run is begun once and resumed later.

    Raises:
        ConfigError: there is nothing to resume, or a run that would be overwritten.
    """
    state = run / STATE
    if resume and not state.is_file():
        raise ConfigError(f"there is nothing to resume in {run}: it has no {STATE}")
    if not resume and state.is_file():
        raise ConfigError(f"{run} holds a run already: add --resume, or choose another --run")


def fit(
    module: TrainingRun,
    run: Path,
    provenance: dict[str, Any],
    *,
    max_time: timedelta | None,
    resume: bool,
    **trainer_options: Any,
) -> Path:
    """Train, and leave the averaged model in `run/model`, the state in `run/last.ckpt`.

    Args:
        run: folder of this run; logs go to `run/logs` (CSV and TensorBoard).
        provenance: what the model's `config.json` says of its training.
        max_time: stop cleanly after it, with everything saved.
        resume: go on from `run/last.ckpt`.
        trainer_options: for `lightning.Trainer`, such as accelerator, devices, strategy.

    Returns:
        the folder of the model.

    Raises:
        ConfigError: a state that does not fit, or devices that cannot be used.
        TrainingError: too many steps were not finite.
    """
    recipe = module.recipe
    if resume:
        _check_state(run / STATE, module)
    # the sampler skips what an interrupted epoch has seen; Lightning cannot know
    warnings.filterwarnings("ignore", message=".*your dataloader is not resumable")
    keeper = ModelKeeper(run, provenance)
    part = f"part_{len(list((run / 'logs').glob('part_*')))}"  # a resumed run logs beside the first
    try:
        trainer = L.Trainer(
            max_epochs=recipe.epochs,
            accumulate_grad_batches=recipe.batch_size // recipe.micro_batch,
            check_val_every_n_epoch=recipe.validate_every,
            precision=recipe.precision,  # type: ignore[arg-type]  # it names what it knows
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            log_every_n_steps=20,
            enable_model_summary=False,
            enable_checkpointing=False,
            logger=[CSVLogger(run, "logs", part), TensorBoardLogger(run, "logs", part)],
            callbacks=[
                keeper,
                WeightAveraging(use_buffers=False, multi_avg_fn=moving_average(recipe.ema_decay)),
                StateKeeper(run, keeper, max_time),
            ],
            **trainer_options,
        )
    except (TypeError, ValueError, MisconfigurationException) as error:
        why = " ".join(str(error).split())
        raise ConfigError(f"training cannot run on the chosen devices: {why}") from error
    trainer.fit(module, ckpt_path=run / STATE if resume else None, weights_only=True)
    return run / "model"


def _check_state(state: Path, module: TrainingRun) -> None:
    """A state that can be gone on from.

    Raises:
        ConfigError: it is damaged, of another version, of another model, or of other data.
    """
    try:
        found = torch.load(state, map_location="cpu", weights_only=True)
        known, optimiser = found["cdvae"], found["optimizer_states"][0]
    except (
        RuntimeError, OSError, EOFError, LookupError, TypeError, UnpicklingError,
    ) as error:  # fmt: skip
        raise ConfigError(f"{state} is damaged or no state of a training: {error}") from error
    system = type(module.model).__name__
    if known.get("system", system) != system:  # earlier versions did not say
        raise ConfigError(f"{state} is of a {known['system']}, and this experiment's of a {system}")
    if known.get("data", module.data) != module.data:
        raise ConfigError(f"{state} was made with other data: begin anew with --init")
    if optimiser.keys() != module.make_optimiser().state_dict().keys() or "model" not in known:
        raise ConfigError(f"{state} was written by another version: start anew with --init")
    if known["model"] != to_dict(module.model.config):
        raise ConfigError(f"{state} was made with another model section than this experiment's")
