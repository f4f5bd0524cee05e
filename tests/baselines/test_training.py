"""Training of the systems: exact resume, weights to begin with, and states that do not fit."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))
from examples import made_split, perovskite_splits, perovskites

from cdvae_core.baselines import checkpoint, training
from cdvae_core.baselines.checkpoint import class_of
from cdvae_core.baselines.protocol import Learns
from cdvae_core.baselines.training import train
from cdvae_core.data.cache import CachedSplit
from cdvae_core.errors import CheckpointError, ConfigError
from cdvae_core.experiment import BaselineExperiment, read

SHIPPED = Path(__file__).parents[2] / "checkpoints" / "perov_like"
CPU = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False}
SIZES = {
    "ftcp": ("max_atoms=5", "max_elements=3", "channels=4", "dense_hidden=16", "latent_dim=8",
             "reciprocal_points=6", "prop=energy"),
    "gschnet": ("features=16", "interactions=1", "bins=40"),
    "p_gschnet": ("features=16", "interactions=1", "bins=40"),
    "substitution": (),
}  # fmt: skip


def experiment(system: str, *overrides: str) -> BaselineExperiment:
    sizes = (f"model.{size}" for size in SIZES[system])
    recipe = (f"recipe.{key}" for key in ("epochs=3", "batch_size=32", "micro_batch=16"))
    name = f"{system}_perov_like" + ("" if system == "substitution" else "_small")
    found = read(name, ["dataset=made", *sizes, *recipe, *overrides])
    assert isinstance(found, BaselineExperiment)
    return found


@pytest.fixture(autouse=True)
def use(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[str, CachedSplit]], None]]:
    """Sets the splits of the dataset."""

    def these(splits: dict[str, CachedSplit]) -> None:
        monkeypatch.setattr(training, "open_split", lambda dataset, split: splits[split])

    these(perovskite_splits())
    yield these


def others() -> dict[str, CachedSplit]:
    """Other crystals: the least and the greatest of everything differ."""
    split = made_split(perovskites(48, 7))
    return {"train": replace(split, info=replace(split.info, fingerprint="x")), "val": split}


def weights(model: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(model).state_dict()


@pytest.mark.parametrize("system", ["ftcp", "p_gschnet"])
def test_resume_is_exact(system: str, tmp_path: Path) -> None:
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    train(experiment(system), whole, **CPU)
    train(experiment(system), parted, max_time=timedelta(0), **CPU)
    assert checkpoint.load(parted / "model").provenance["steps"] == 1
    train(experiment(system), parted, resume=True, **CPU)
    one, other = weights(whole / "model"), weights(parted / "model")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("system", ["ftcp", "gschnet", "p_gschnet"])
def test_a_batch_begins_with_what_has_one_row_for_each_crystal(system: str) -> None:
    split = perovskite_splits()["train"]
    model = class_of(system).build(experiment(system).model, split)
    assert isinstance(model, Learns)
    batch = model.examples(split).__getitems__([0, 3, 4])  # type: ignore[attr-defined]
    assert len(next(iter(batch.values()))) == 3


def test_weights_to_begin_with_leave_what_is_known_of_the_data(
    use: Callable, tmp_path: Path
) -> None:
    once = experiment("ftcp", "recipe.epochs=1", "recipe.learning_rate=1e-12", "recipe.seed=5")
    first = train(experiment("ftcp"), tmp_path / "first", **CPU)
    use(others())
    second = train(once, tmp_path / "second", init=first, **CPU)
    anew = class_of("ftcp").build(once.model, others()["train"])
    found = weights(second)
    assert torch.allclose(found["mu.weight"], weights(first)["mu.weight"], atol=1e-6)
    assert torch.equal(found["low"], anew.low) and torch.equal(found["span"], anew.span)
    assert not torch.equal(found["span"], weights(first)["span"])
    assert checkpoint.load(second).provenance["initialised_from"] == str(first)


def test_weights_of_another_system_are_refused(tmp_path: Path) -> None:
    first = train(experiment("gschnet", "recipe.epochs=1"), tmp_path / "first", **CPU)
    with pytest.raises(ConfigError, match="holds a gschnet, not a p_gschnet"):
        train(experiment("p_gschnet"), tmp_path / "second", init=first, **CPU)


def test_weights_of_cdvae_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no ftcp or .*, but a CDVAE"):
        train(experiment("ftcp"), tmp_path, init=SHIPPED, **CPU)


def test_crystals_too_large_are_refused_with_weights_to_begin_with(
    use: Callable, tmp_path: Path
) -> None:
    small = experiment("ftcp", "model.max_atoms=4")
    with pytest.raises(ConfigError, match=r"max_atoms is 4.*5 atoms.*model\.max_atoms=5"):
        train(small, tmp_path, init=tmp_path / "nowhere", **CPU)


def test_a_state_of_another_system_or_other_data_is_refused(use: Callable, tmp_path: Path) -> None:
    # the two systems have the same configuration
    train(experiment("gschnet", "recipe.epochs=1"), tmp_path, **CPU)
    with pytest.raises(ConfigError, match="is of a GSchNet, and this experiment's of a PGSchNet"):
        train(experiment("p_gschnet"), tmp_path, resume=True, **CPU)
    use(others())
    with pytest.raises(ConfigError, match="was made with other data"):
        train(experiment("gschnet"), tmp_path, resume=True, **CPU)


def test_what_does_not_learn_is_kept_as_it_was_built(tmp_path: Path) -> None:
    model = checkpoint.load(train(experiment("substitution"), tmp_path))
    assert model.provenance["train_crystals"] == 96 and "steps" not in model.provenance
    with pytest.raises(ConfigError, match="nothing to resume"):
        train(experiment("substitution"), tmp_path, resume=True)


def test_the_learning_rate_begins_anew_with_each_stage() -> None:
    split = made_split(perovskites(4))
    model = class_of("ftcp").build(experiment("ftcp").model, split)
    recipe = replace(experiment("ftcp").recipe, epochs=10, warmup_steps=2)
    run = training.BaselineTraining(model, recipe, split, split)
    model.stages = (0.3,)
    rates = [run._rate(step, 100) for step in range(101)]
    assert rates[29] < 0.05 < rates[30] < rates[31] == 1.0  # 30 of 100 steps, and a warm-up
    assert rates[99] < 0.05 and rates[2] == pytest.approx(1.0)
    model.stages = ()
    assert [run._rate(step, 100) for step in (30, 60)] == pytest.approx(
        [super(training.BaselineTraining, run)._rate(step, 100) for step in (30, 60)]
    )
