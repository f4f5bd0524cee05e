"""Training CDVAE: reads a preprocessed cache, needs neither pymatgen nor smact."""

from __future__ import annotations

from dataclasses import asdict, fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from cdvae_core.allocator import keep_freed_memory
from cdvae_core.checkpoint import load as load_model
from cdvae_core.compiled import compile_decoder
from cdvae_core.crystal import CrystalBatch
from cdvae_core.data.cache import CachedSplit, LabelledBatch, open_split
from cdvae_core.data.loader import loader
from cdvae_core.errors import ConfigError
from cdvae_core.experiment import Experiment
from cdvae_core.graph import knn_graph
from cdvae_core.losses import Losses, losses
from cdvae_core.model import CDVAE
from cdvae_core.noise import coordinate_sigmas, perturb_coordinates
from cdvae_core.optimiser import MuonAdamW
from cdvae_core.scalers import Scalers
from cdvae_core.trainer import (
    VALIDATION_SEED,
    TrainingRun,
    check_fits,
    check_new_or_resumed,
    fit,
    provenance,
)

_SCALE_CRYSTALS = 64
_GAINS = ("encode_aggregates", "linear_aggregates")  # what a model may gain as it trains on


class Training(TrainingRun):
    """The training and validation steps of CDVAE.

    Args:
        model: to be trained.
        experiment: its recipe and loss weights.
        train, val: splits of the cache.
    """

    model: CDVAE

    def __init__(
        self, model: CDVAE, experiment: Experiment, train: CachedSplit, val: CachedSplit
    ) -> None:
        super().__init__(model, experiment.recipe, train)
        self.experiment = experiment
        self.splits = {"train": train, "val": val}

    def train_dataloader(self) -> DataLoader:
        prop = self.model.config.prop
        return loader(self.splits["train"], prop, self.recipe.micro_batch, self.order())

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
        self.log_losses("train", _terms(record), total, batch.crystals.num_crystals)
        return total

    def validation_step(self, batch: LabelledBatch, batch_idx: int) -> None:
        record = self._losses(batch, VALIDATION_SEED, batch_idx)
        total = record.denoising(self.experiment.losses)
        self.log_losses("val", _terms(record), total, batch.crystals.num_crystals)

    def _losses(self, batch: LabelledBatch, seed: int, step: int) -> Losses:
        recipe = self.experiment.recipe
        forced = recipe.teacher_forcing_epochs
        return losses(
            self.model,
            batch.crystals,
            batch.graph,
            batch.prop,
            self.generator(seed, step),
            teacher_forcing=forced is None or self.current_epoch < forced,
            noise_draws=recipe.noise_draws,
            shuffled=recipe.shuffled_types,
        )

    def make_optimiser(self) -> MuonAdamW:
        return MuonAdamW(self.model, self.recipe.learning_rate)


def _terms(record: Losses) -> dict[str, Tensor]:
    return {f.name: getattr(record, f.name) for f in fields(record)}


def build(experiment: Experiment, train: CachedSplit, init: Path | None = None) -> CDVAE:
    """A new model for a dataset, its scalers fitted, its weights drawn or taken from `init`.

    Raises:
        ConfigError: the model cannot hold the dataset's crystals, or `init` has another shape.
    """
    config, seed = experiment.model, experiment.recipe.seed
    check_fits(config, train)
    known = train.properties[config.prop] if config.prop else np.full(len(train), np.nan)
    arrays = (train.arrays["lattice"], train.num_atoms, known)
    scalers = Scalers.fit(*(torch.tensor(values) for values in arrays))
    if init is not None:
        model = load_model(init)
        old, new = asdict(model.config), asdict(config)
        other_head = (old.pop("prop") is None) != (new.pop("prop") is None)
        gained = [name for name in _GAINS if new[name] and not old[name]]
        if other_head or old | dict.fromkeys(gained, True) != new:
            raise ConfigError(f"{init} was made with another model section than this experiment's")
        model.restandardise(scalers, prop=model.config.prop == config.prop)
        model.config = config  # another property is learnt from the old one's head
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if "encode_aggregates" in gained:
                model.add_aggregates()
            if "linear_aggregates" in gained:
                model.add_heads()
        return model.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CDVAE(config, scalers)
    _fit_scales(model, train, seed)
    return model


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
    check_new_or_resumed(run, resume)
    torch.set_float32_matmul_precision(recipe.matmul)
    keep_freed_memory()
    train_split = open_split(experiment.dataset, "train")
    val_split = open_split(experiment.dataset, "val")
    model = build(experiment, train_split, init)
    module = Training(model, experiment, train_split, val_split)
    module.initialised_from = str(init) if init else None
    if recipe.compile:
        compile_decoder(model)
    known = provenance(experiment.dataset, train_split, recipe)
    known["loss_weights"] = asdict(experiment.losses)
    return fit(module, run, known, max_time=max_time, resume=resume, **trainer_options)
