"""Training, on Lightning: reads a preprocessed cache, needs neither pymatgen nor smact.

Every draw of a step comes from a generator seeded by the recipe's seed and the step's number, and
the order of crystals from the seed and the epoch's, so a resumed run repeats the losses of one that
was never interrupted.
"""

from __future__ import annotations

import logging
import math
import platform
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from datetime import timedelta
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, WeightAveraging
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor
from torch.utils.data import DataLoader

from cdvae_core.allocator import keep_freed_memory
from cdvae_core.checkpoint import load as load_model
from cdvae_core.compiled import compile_decoder
from cdvae_core.config import to_dict
from cdvae_core.crystal import CrystalBatch
from cdvae_core.data.cache import CachedSplit, LabelledBatch, open_split
from cdvae_core.data.loader import ShardedOrder, loader
from cdvae_core.errors import ConfigError, TrainingError
from cdvae_core.experiment import Experiment
from cdvae_core.graph import knn_graph
from cdvae_core.losses import Losses, losses
from cdvae_core.model import CDVAE
from cdvae_core.noise import coordinate_sigmas, perturb_coordinates
from cdvae_core.optimiser import MuonAdamW
from cdvae_core.scalers import Scalers

log = logging.getLogger(__name__)

_STATE = "last.ckpt"
_SECONDS_BETWEEN_STATES = 300
_VALIDATION_SEED = 20211
_SCALE_CRYSTALS = 64


class Training(L.LightningModule):
    """The training step, the optimiser, and what is kept of a run.

    Args:
        model: to be trained.
        experiment: its recipe and loss weights.
        train, val: splits of the cache.
    """

    def __init__(
        self, model: CDVAE, experiment: Experiment, train: CachedSplit, val: CachedSplit
    ) -> None:
        super().__init__()
        self.model = model
        self.experiment, self.recipe = experiment, experiment.recipe
        self.splits = {"train": train, "val": val}
        self.skipped = 0
        self.initialised_from: str | None = None  # the checkpoint that the weights came from
        self.seconds = 0.0  # spent in earlier parts of a resumed run
        self._resume_skip = 0

    def train_dataloader(self) -> DataLoader:
        split, recipe = self.splits["train"], self.recipe
        world, rank = self.trainer.world_size, self.trainer.global_rank
        order = ShardedOrder(len(split), recipe.batch_size, recipe.seed, world, rank)
        if not len(order):
            raise ConfigError(
                f"recipe.batch_size {recipe.batch_size} exceeds the {len(split)} crystals of the "
                f"training split on {world} process(es)"
            )
        order.skip = self._resume_skip * recipe.micro_batch
        return loader(split, self.model.config.prop, recipe.micro_batch, order)

    def val_dataloader(self) -> DataLoader:
        return loader(self.splits["val"], self.model.config.prop, self.recipe.micro_batch)

    def transfer_batch_to_device(
        self, batch: LabelledBatch, device: torch.device, dataloader_idx: int
    ) -> LabelledBatch:
        return batch.to(device)

    def training_step(self, batch: LabelledBatch, batch_idx: int) -> Tensor:
        step = self.trainer.fit_loop.total_batch_idx
        record = self._losses(batch, self.recipe.seed + 1, step)
        total = record.total(self.experiment.losses)
        self._log("train", record, total, batch, on_step=True)
        return total

    def validation_step(self, batch: LabelledBatch, batch_idx: int) -> None:
        record = self._losses(batch, _VALIDATION_SEED, batch_idx)
        self._log("val", record, record.denoising(self.experiment.losses), batch, on_step=False)

    def _losses(self, batch: LabelledBatch, seed: int, step: int) -> Losses:
        world, rank = self.trainer.world_size, self.trainer.global_rank
        generator = torch.Generator(self.device)
        generator.manual_seed(seed * 1_000_000_007 + step * world + rank)
        forced = self.recipe.teacher_forcing_epochs
        return losses(
            self.model,
            batch.crystals,
            batch.graph,
            batch.prop,
            generator,
            teacher_forcing=forced is None or self.current_epoch < forced,
            noise_draws=self.recipe.noise_draws,
        )

    def _log(
        self, part: str, record: Losses, total: Tensor, batch: LabelledBatch, on_step: bool
    ) -> None:
        values = {f"{part}/{name}": value for name, value in asdict_tensors(record).items()}
        self.log_dict(
            values | {f"{part}/loss": total},
            on_step=on_step,
            on_epoch=not on_step,
            batch_size=batch.crystals.num_crystals,
            sync_dist=not on_step,
        )
        self.log(
            "loss" if on_step else "val_loss",
            total,
            prog_bar=True,
            logger=False,
            on_step=on_step,
            on_epoch=not on_step,
            batch_size=batch.crystals.num_crystals,
            sync_dist=not on_step,
        )

    def configure_optimizers(self) -> dict[str, Any]:
        optimiser = MuonAdamW(self.model, self.recipe.learning_rate)
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


def asdict_tensors(record: Losses) -> dict[str, Tensor]:
    return {f.name: getattr(record, f.name).detach() for f in fields(record)}


def moving_average(decay: float) -> Callable[[list[Tensor], list[Tensor], Tensor | int], None]:
    """An exponential moving average that forgets the random start: it is short at first.

    After n steps it goes back over n / 9 of them, until `decay` limits it. With a constant 0.999 a
    tenth of the average would still be the initial weights after 2,300 steps.
    """

    @torch.no_grad()
    def update(averaged: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
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

    def on_validation_epoch_end(self, trainer: L.Trainer, module: Training) -> None:
        self.save(trainer, module)

    def save(self, trainer: L.Trainer, module: Training) -> None:
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

    def on_train_batch_end(
        self, trainer: L.Trainer, module: Training, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        now = time.monotonic()
        stop = trainer.strategy.reduce_boolean_decision(now > self.deadline, all=False)
        ending = trainer.is_last_batch and trainer.current_epoch + 1 == trainer.max_epochs
        due = ending or now - self.saved > _SECONDS_BETWEEN_STATES
        if stop or trainer.strategy.reduce_boolean_decision(due, all=False):
            trainer.save_checkpoint(self.run / _STATE)
            self.saved = time.monotonic()
        trainer.should_stop = trainer.should_stop or stop

    def on_train_end(self, trainer: L.Trainer, module: Training) -> None:
        self.keeper.save(trainer, module)


def build(experiment: Experiment, train: CachedSplit, init: Path | None = None) -> CDVAE:
    """A new model for a dataset, its scalers fitted, its weights drawn or taken from `init`.

    Raises:
        ConfigError: the model cannot hold the dataset's crystals, or `init` has another shape.
    """
    config, seed = experiment.model, experiment.recipe.seed
    largest = int(train.num_atoms.max())
    if largest > config.max_atoms:
        raise ConfigError(
            f"model.max_atoms is {config.max_atoms}, but '{experiment.dataset}' has crystals of "
            f"{largest} atoms; set model.max_atoms={largest}"
        )
    if config.prop is not None and config.prop not in train.properties:
        known_names = ", ".join(train.properties) or "none"
        raise ConfigError(
            f"model.prop is '{config.prop}', but '{experiment.dataset}' has {known_names}"
        )
    known = train.properties[config.prop] if config.prop else np.full(len(train), np.nan)
    arrays = (train.arrays["lattice"], train.num_atoms, known)
    scalers = Scalers.fit(*(torch.tensor(values) for values in arrays))
    if init is not None:
        model = load_model(init)
        other_head = (model.config.prop is None) != (config.prop is None)
        if other_head or replace(model.config, prop=config.prop) != config:
            raise ConfigError(f"{init} was made with another model section than this experiment's")
        model.restandardise(scalers, prop=model.config.prop == config.prop)
        model.config = config  # another property is learnt from the old one's head
        return model.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CDVAE(config, scalers)
    _fit_scales(model, train, seed)
    return model


def _check_state(state: Path, model: CDVAE) -> None:
    """A state that can be gone on from.

    Raises:
        ConfigError: it is damaged, of another version, or of another model.
    """
    try:
        found = torch.load(state, map_location="cpu", weights_only=True)
        known, optimiser = found["cdvae"], found["optimizer_states"][0]
    except (RuntimeError, OSError, EOFError, KeyError, IndexError, UnpicklingError) as error:
        raise ConfigError(f"{state} is damaged or no state of a training: {error}") from error
    if optimiser.keys() != {"muon", "adamw"} or "model" not in known:
        raise ConfigError(f"{state} was written by another version: start anew with --init")
    if known["model"] != to_dict(model.config):
        raise ConfigError(f"{state} was made with another model section than this experiment's")


def _fit_scales(model: CDVAE, train: CachedSplit, seed: int) -> None:
    """The decoder's constant factors, from one batch at every noise level."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(train), generator=generator)[:_SCALE_CRYSTALS].tolist()
    crystals: CrystalBatch = train.batch(chosen, None).crystals
    levels = coordinate_sigmas(model.config.noise)
    drawn = torch.randint(len(levels), (crystals.num_crystals,), generator=generator)
    frac = perturb_coordinates(crystals, levels[drawn], generator)
    decoder = model.config.decoder
    graph = knn_graph(crystals.replace(frac_coords=frac), decoder.neighbours, decoder.cutoff)
    z = torch.randn(crystals.num_crystals, model.config.latent_dim, generator=generator)
    latent = model.decoder.embed_latent(z)[crystals.crystal_of_atom].detach()
    model.decoder.fit_scales(latent, crystals.atomic_numbers, graph)


def train(
    experiment: Experiment,
    run: Path,
    *,
    max_time: timedelta | None = None,
    resume: bool = False,
    init: Path | None = None,
    **trainer_options: Any,
) -> Path:
    """Train, and leave the averaged model in `run/model`, the state in `run/last.ckpt`.

    Args:
        run: folder of this run; logs go to `run/logs` (CSV and TensorBoard).
        max_time: stop cleanly after it, with everything saved.
        resume: go on from `run/last.ckpt`.
        init: start from the weights of a checkpoint folder.
        trainer_options: for `lightning.Trainer`, such as accelerator, devices, strategy.

    Returns:
        the folder of the model.

    Raises:
        ConfigError: nothing to resume, or settings that do not fit the dataset.
        DatasetError: the dataset's cache is missing.
        TrainingError: too many steps were not finite.
    """
    recipe = experiment.recipe
    state = run / _STATE
    if resume and not state.is_file():
        raise ConfigError(f"there is nothing to resume in {run}: it has no {_STATE}")
    if not resume and state.is_file():
        raise ConfigError(f"{run} holds a run already: add --resume, or choose another --run")
    torch.set_float32_matmul_precision(recipe.matmul)
    keep_freed_memory()
    train_split = open_split(experiment.dataset, "train")
    val_split = open_split(experiment.dataset, "val")
    model = build(experiment, train_split, init)
    module = Training(model, experiment, train_split, val_split)
    module.initialised_from = str(init) if init else None
    if recipe.compile:
        compile_decoder(model)
    if resume:
        _check_state(state, model)
    provenance = {
        "dataset": experiment.dataset,
        "data_fingerprint": train_split.fingerprint,
        "data_notes": list(train_split.info.notes),
        "train_crystals": len(train_split),
        "seed": recipe.seed,
        "recipe": asdict(recipe),
        "loss_weights": asdict(experiment.losses),
    }
    # the sampler skips what an interrupted epoch has seen; Lightning cannot know
    warnings.filterwarnings("ignore", message=".*your dataloader is not resumable")
    keeper = ModelKeeper(run, provenance)
    part = f"part_{len(list((run / 'logs').glob('part_*')))}"  # a resumed run logs beside the first
    try:
        trainer = L.Trainer(
            max_epochs=recipe.epochs,
            accumulate_grad_batches=recipe.batch_size // recipe.micro_batch,
            check_val_every_n_epoch=recipe.validate_every,
            precision=recipe.precision,
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
    trainer.fit(module, ckpt_path=state if resume else None, weights_only=True)
    return run / "model"
