"""Training: exact resume, gradients that are not finite, time limits, and what is written."""

from __future__ import annotations

import csv
import itertools
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from examples import made_split, perovskite_splits, perovskites
from torch import Tensor

import cdvae_core.train as training
from cdvae_core import CDVAE, trainer
from cdvae_core.crystal import Crystal, CrystalBatch
from cdvae_core.data.cache import CachedSplit
from cdvae_core.errors import CdvaeError, ConfigError, TrainingError
from cdvae_core.experiment import Experiment, read
from cdvae_core.lattice import matrix_to_parameters
from cdvae_core.losses import Losses

SMALL = [
    "dataset=made",
    "model.prop=energy",
    "model.latent_dim=16",
    "model.head_hidden=16",
    "model.encoder.hidden=16",
    "model.encoder.blocks=1",
    "model.encoder.int_emb=8",
    "model.encoder.out_emb=16",
    "model.decoder.hidden=16",
    "model.decoder.blocks=1",
    "model.decoder.neighbours=8",
    "model.decoder.num_radial=16",
    "model.decoder.triplet_emb=8",
    "recipe.epochs=3",
    "recipe.batch_size=32",
    "recipe.micro_batch=16",
    "recipe.validate_every=2",
    "recipe.warmup_steps=4",
    "recipe.noise_draws=1",
]
CPU = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False}


def experiment(*overrides: str) -> Experiment:
    return read("perov_like_small", [*SMALL, *overrides])


@pytest.fixture(autouse=True)
def splits(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, CachedSplit]]:
    """96 crystals: three steps of two micro-batches in an epoch."""
    known = perovskite_splits()
    monkeypatch.setattr(training, "open_split", lambda dataset, split: known[split])
    yield known


def weights(run: Path) -> dict[str, Tensor]:
    return CDVAE.load(run / "model").state_dict()


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let the time be up after so many optimiser steps."""
    original = trainer.StateKeeper.on_train_batch_end

    def on_train_batch_end(self: Any, trainer: Any, *args: Any) -> None:
        if trainer.global_step >= step:
            self.deadline = 0.0
        original(self, trainer, *args)

    monkeypatch.setattr(trainer.StateKeeper, "on_train_batch_end", on_train_batch_end)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "open_split", lambda dataset, split: perovskite_splits()[split])
        training.train(experiment(), run, **CPU)
    return run


def test_a_run_leaves_model_state_and_logs(uninterrupted: Path) -> None:
    model = CDVAE.load(uninterrupted / "model")
    said = model.provenance
    assert (said["epochs"], said["steps"], said["skipped_steps"]) == (3, 9, 0)
    assert said["dataset"] == "made" and said["train_crystals"] == 96
    assert said["recipe"]["epochs"] == 3 and said["loss_weights"]["coordinates"] == 10
    assert list(uninterrupted.glob("logs/*/events*"))
    (table,) = uninterrupted.glob("logs/*/metrics.csv")
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert any(row.get("val/loss") for row in rows)
    assert {"val/coordinates", "val/types", "val/kl", "val/prop"} <= rows[0].keys()


def test_the_same_seed_trains_the_same_weights(uninterrupted: Path, tmp_path: Path) -> None:
    training.train(experiment(), tmp_path / "again", **CPU)
    assert_same(weights(uninterrupted), weights(tmp_path / "again"))


def test_another_seed_trains_others(uninterrupted: Path, tmp_path: Path) -> None:
    training.train(experiment("recipe.seed=1"), tmp_path / "other", **CPU)
    assert not torch.equal(
        weights(uninterrupted)["fc_mu.weight"], weights(tmp_path / "other")["fc_mu.weight"]
    )


@pytest.mark.parametrize("step", [2, 3, 7], ids=["mid-epoch", "epoch's end", "after validation"])
def test_resume_is_exact(
    uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    run = tmp_path / "cut"
    with monkeypatch.context() as patch:
        stop_after(patch, step)
        training.train(experiment(), run, **CPU)
    assert CDVAE.load(run / "model").provenance["steps"] == step
    training.train(experiment(), run, resume=True, **CPU)
    assert CDVAE.load(run / "model").provenance["steps"] == 9
    assert_same(weights(uninterrupted), weights(run))


def test_max_time_stops_with_everything_saved(tmp_path: Path) -> None:
    run = tmp_path / "short"
    training.train(
        experiment("recipe.epochs=100000"), run, max_time=timedelta(microseconds=1), **CPU
    )
    assert CDVAE.load(run / "model").provenance["steps"] == 1
    assert (run / "last.ckpt").is_file()


def poison(monkeypatch: pytest.MonkeyPatch, bad_calls: set[int]) -> None:
    """Let some micro-batches have a loss that is not a number."""
    original, count = training.losses, [0]

    def losses(model: CDVAE, crystals: CrystalBatch, *args: Any, **options: Any) -> Losses:
        record = original(model, crystals, *args, **options)
        if model.training:
            count[0] += 1
            if count[0] in bad_calls:
                object.__setattr__(record, "kl", record.kl * math.nan)
        return record

    monkeypatch.setattr(training, "losses", losses)


def test_gradients_that_are_not_finite_are_skipped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, {3, 9, 10})  # in the second and in the fifth step
    run = tmp_path / "some"
    training.train(experiment("recipe.max_skipped=2"), run, **CPU)
    assert CDVAE.load(run / "model").provenance["skipped_steps"] == 2
    assert all(t.isfinite().all() for t in weights(run).values())


def test_too_many_of_them_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, set(range(1000)))
    with pytest.raises(TrainingError, match=r"3 steps.*recipe\.learning_rate"):
        training.train(experiment("recipe.max_skipped=2"), tmp_path / "bad", **CPU)


def test_start_from_a_checkpoint(uninterrupted: Path, tmp_path: Path) -> None:
    run = tmp_path / "on"
    training.train(
        experiment("recipe.epochs=1", "recipe.learning_rate=1.0e-12",
                   "recipe.final_learning_rate=1.0e-12"),
        run, init=uninterrupted / "model", **CPU,
    )  # fmt: skip
    before, after = weights(uninterrupted), weights(run)
    assert all(torch.allclose(before[n], after[n], atol=1e-6) for n in before)
    said = CDVAE.load(run / "model").provenance
    assert said["initialised_from"] == str(uninterrupted / "model")


def test_a_model_begun_from_another_predicts_the_same_with_its_own_scalers(
    uninterrupted: Path, splits: dict[str, CachedSplit]
) -> None:
    """Triclinic cells of another size: new statistics, the old model's lattice and property."""
    cells = [
        Crystal(c.atomic_numbers, c.frac_coords, 1.2 * c.lattice + 0.02 * i * np.tri(3))
        for i, c in enumerate(perovskites(12))
    ]
    old = CDVAE.load(uninterrupted / "model")
    old.scalers = replace(old.scalers, lattice_std=(0.3, 0.2, 0.1, 3.0, 2.0, 1.0))
    old.save(uninterrupted.parent / "varied")
    model = training.build(experiment(), made_split(cells), uninterrupted.parent / "varied").eval()
    assert model.scalers == training.build(experiment(), made_split(cells)).scalers
    z = torch.randn(20, 16, generator=torch.Generator().manual_seed(0))
    five = torch.full((20,), 5)
    before, after = (m.lattice(m.aggregates(z).lattice, five) for m in (old, model))
    assert torch.allclose(before, after, atol=1e-4)
    assert torch.allclose(old.predict_property(z), model.predict_property(z), atol=1e-4)


def test_a_lattice_parameter_that_new_data_do_not_vary_is_predicted_as_theirs(
    uninterrupted: Path, splits: dict[str, CachedSplit]
) -> None:
    old = CDVAE.load(uninterrupted / "model")
    old.scalers = replace(old.scalers, lattice_std=(0.3, 0.2, 0.1, 3.0, 2.0, 1.0))
    old.save(uninterrupted.parent / "varied")
    model = training.build(experiment(), splits["train"], uninterrupted.parent / "varied").eval()
    z = torch.randn(20, 16, generator=torch.Generator().manual_seed(0))
    cells = model.lattice(model.aggregates(z).lattice, torch.full((20,), 5))
    assert torch.allclose(matrix_to_parameters(cells)[1], torch.tensor(90.0), atol=1e-2)


def gaining(name: str, train: CachedSplit, folder: Path) -> tuple[CDVAE, CDVAE]:
    """A model without a part, and the one with it that begins from its weights."""
    without = training.build(experiment(f"model.{name}=false"), train)
    without.save(folder)
    return without, training.build(experiment(), train, folder)


def test_an_encoder_that_gains_the_aggregates_says_the_same_at_first(
    tmp_path: Path, splits: dict[str, CachedSplit]
) -> None:
    blind, sees = gaining("encode_aggregates", splits["train"], tmp_path / "blind")
    assert sees.config.encode_aggregates and not blind.config.encode_aggregates
    given = splits["train"].batch([0, 1, 2], None)
    for one, other in zip(
        blind.encode(given.crystals, given.graph), sees.encode(given.crystals, given.graph),
        strict=True,
    ):  # fmt: skip
        assert torch.equal(one, other)
    sees.save(tmp_path / "sees")
    with pytest.raises(ConfigError, match="another model section"):
        training.build(
            experiment("model.encode_aggregates=false"), splits["train"], tmp_path / "sees"
        )


def test_linear_heads_are_gained_and_keep_the_rest(
    tmp_path: Path, splits: dict[str, CachedSplit]
) -> None:
    curved, linear = gaining("linear_aggregates", splits["train"], tmp_path / "curved")
    given = splits["train"].batch([0, 1, 2], None)
    mu, _ = linear.encode(given.crystals, given.graph)
    assert torch.equal(mu, curved.encode(given.crystals, given.graph)[0])
    ends, middle = linear.aggregates(mu[:2]), linear.aggregates(mu[:2].mean(0, keepdim=True))
    for name in ("num_atoms", "lattice"):
        values = getattr(ends, name)
        assert torch.allclose(values.mean(0), getattr(middle, name)[0], atol=1e-5)
    assert middle.composition.isfinite().all()


def test_start_from_a_checkpoint_of_another_shape(uninterrupted: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="another model section"):
        training.train(
            experiment("model.latent_dim=8"), tmp_path / "on", init=uninterrupted / "model", **CPU
        )


def test_what_cannot_be_trained(tmp_path: Path, splits: dict[str, CachedSplit]) -> None:
    with pytest.raises(ConfigError, match="nothing to resume"):
        training.train(experiment(), tmp_path / "none", resume=True, **CPU)
    with pytest.raises(ConfigError, match=r"max_atoms is 4.*5 atoms.*model\.max_atoms=5"):
        training.train(experiment("model.max_atoms=4"), tmp_path / "big", **CPU)
    with pytest.raises(ConfigError, match="batch_size 128 exceeds the 96"):
        training.train(experiment("recipe.batch_size=128"), tmp_path / "few", **CPU)
    for name in ("none", "big"):
        assert not (tmp_path / name).exists()


def test_a_property_that_the_dataset_lacks(tmp_path: Path) -> None:
    with pytest.raises(CdvaeError, match=r"gap.*energy"):
        training.train(experiment("model.prop=gap"), tmp_path / "gap", **CPU)
    assert not (tmp_path / "gap").exists()


def test_a_run_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "cut"
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        training.train(experiment(), run, **CPU)
    with pytest.raises(ConfigError, match="--resume"):
        training.train(experiment(), run, **CPU)


def test_a_finished_run_is_not_overwritten(uninterrupted: Path) -> None:
    before = weights(uninterrupted)
    with pytest.raises(ConfigError, match="holds a run"):
        training.train(experiment("recipe.epochs=1", "recipe.seed=5"), uninterrupted, **CPU)
    assert_same(before, weights(uninterrupted))


@pytest.mark.parametrize("decay", [0.0, 0.999])
def test_averaged_weights_are_what_is_saved(tmp_path: Path, decay: float) -> None:
    """With a decay of zero the average is the last step's weights, else it is behind them."""
    run = tmp_path / "run"
    training.train(experiment(f"recipe.ema_decay={decay}", "recipe.epochs=1"), run, **CPU)
    state = torch.load(run / "last.ckpt", weights_only=True)
    last = {
        name.removeprefix("model."): tensor for name, tensor in state["current_model_state"].items()
    }
    saved = weights(run)
    if decay == 0.0:
        assert_same(saved, last)
    else:
        moved = [name for name in saved if not torch.equal(saved[name], last[name])]
        assert len(moved) > len(saved) / 2


def test_a_finished_run_can_be_trained_further(uninterrupted: Path, tmp_path: Path) -> None:
    run = tmp_path / "longer"
    shutil.copytree(uninterrupted, run)
    training.train(experiment("recipe.epochs=4"), run, resume=True, **CPU)
    said = CDVAE.load(run / "model").provenance
    assert (said["epochs"], said["steps"]) == (4, 12)
    assert not torch.equal(weights(uninterrupted)["fc_mu.weight"], weights(run)["fc_mu.weight"])


def test_fitting_the_scalers_on_one_crystal() -> None:
    """However little there is to fit, a prediction must be a number."""
    one = made_split(perovskites(1))
    model = training.build(experiment(), one)
    assert all(math.isfinite(v) for v in (*model.scalers.lattice_std, model.scalers.prop_std))


def test_learning_rate_rises_then_falls(splits: dict[str, CachedSplit]) -> None:
    plan = experiment("recipe.warmup_steps=10", "recipe.learning_rate=0.001")
    model = training.build(plan, splits["train"])
    module = training.Training(model, plan, splits["train"], splits["val"])
    rates = [module._rate(step, 100) for step in range(120)]
    assert rates[0] == 0.1 and rates[9] == rates[10] == 1.0
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    floor = plan.recipe.final_learning_rate / 0.001
    assert rates[100] == rates[119] == pytest.approx(floor)


def test_building_draws_nothing_from_the_global_generator(splits: dict[str, CachedSplit]) -> None:
    before = torch.get_rng_state()
    training.build(experiment(), splits["train"])
    assert torch.equal(torch.get_rng_state(), before)


def validated(run: Path, *overrides: str, accelerator: str = "cpu") -> float:
    """The coordinate loss in validation after one epoch."""
    given = experiment("recipe.epochs=1", "recipe.validate_every=1", *overrides)
    training.train(given, run, **CPU | {"accelerator": accelerator})
    (table,) = run.glob("logs/*/metrics.csv")
    with table.open() as file:
        rows = [row["val/coordinates"] for row in csv.DictReader(file)]
    return float(next(value for value in rows if value))


def test_bfloat16_changes_the_losses_little(tmp_path: Path) -> None:
    exact = validated(tmp_path / "float32")
    rounded = validated(tmp_path / "bfloat16", "recipe.precision=bf16-mixed")
    assert rounded == pytest.approx(exact, rel=0.05)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.parametrize("option", ["recipe.matmul=high", "recipe.precision=bf16-mixed"])
def test_a_gpu_and_its_shorter_numbers_change_the_losses_little(
    tmp_path: Path, option: str
) -> None:
    exact = validated(tmp_path / "cpu")
    assert validated(tmp_path / "gpu", accelerator="gpu") == pytest.approx(exact, rel=0.01)
    rounded = validated(tmp_path / "rounded", option, accelerator="gpu")
    assert rounded == pytest.approx(exact, rel=0.05)


def test_the_average_forgets_its_start_and_settles_at_its_decay() -> None:
    update = trainer.moving_average(0.99)
    averaged = torch.full((3,), 100.0)
    for count in range(1, 300):
        update([averaged], [torch.ones(3)], torch.tensor(count))
    assert (averaged - 1).abs().max() < 1e-3
    jump = torch.zeros(1)
    update([jump], [torch.ones(1)], torch.tensor(10_000))
    assert jump.item() == pytest.approx(0.01)


@pytest.mark.parametrize("damage", ["cut", "foreign", "old", "other model"])
def test_a_state_that_cannot_be_gone_on_from_is_named(
    uninterrupted: Path, tmp_path: Path, damage: str
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    whole = (uninterrupted / "last.ckpt").read_bytes()
    state = torch.load(uninterrupted / "last.ckpt", weights_only=True)
    if damage == "cut":
        (run / "last.ckpt").write_bytes(whole[: len(whole) // 2])
    else:
        if damage == "foreign":
            del state["cdvae"]
        if damage == "old":
            state["optimizer_states"] = [{"state": {}, "param_groups": []}]
        torch.save(state, run / "last.ckpt")
    overrides = ["model.decoder.triplet_emb=4"] if damage == "other model" else []
    with pytest.raises(ConfigError, match=r"last\.ckpt"):
        training.train(experiment(*overrides), run, resume=True, **CPU)


def test_init_with_and_without_a_property_do_not_mix(
    uninterrupted: Path, splits: dict[str, CachedSplit]
) -> None:
    with pytest.raises(ConfigError, match="another model section"):
        training.build(experiment("model.prop=null"), splits["train"], uninterrupted / "model")
