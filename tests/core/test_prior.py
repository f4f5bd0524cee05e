"""The flow prior: it learns a distribution that is known, hears its conditions, and is kept."""

from __future__ import annotations

import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from examples import small_model

from cdvae_core.errors import CheckpointError, ConfigError
from cdvae_core.model import CDVAE
from cdvae_core.optimise import Goal, guided
from cdvae_core.prior import (
    FILE,
    Condition,
    FlowPrior,
    Labelled,
    draw,
    draw_whole,
    fit,
    load_prior,
    read_counts,
    save_prior,
)

WIDTH, MOST = 16, 6
IRON, OXYGEN = 26, 8


def made(count: int, seed: int) -> Labelled:
    """Two clusters: crystals with oxygen at +3 in the first coordinate, with iron at -3.

    The property is the second coordinate, N (1 to 6) follows the third.
    """
    generator = torch.Generator().manual_seed(seed)
    z = 0.3 * torch.randn(count, WIDTH, generator=generator)
    oxide = torch.rand(count, generator=generator) < 0.5
    z[:, 0] += torch.where(oxide, 3.0, -3.0)
    z[:, 1] = 2 + torch.randn(count, generator=generator)
    size = torch.randint(1, MOST + 1, (count,), generator=generator)
    z[:, 2] = size + 0.1 * torch.randn(count, generator=generator)
    elements = torch.zeros(count, 100, dtype=torch.bool)
    elements[:, OXYGEN - 1], elements[:, IRON - 1] = oxide, ~oxide
    return Labelled(z, 10 * z[:, 1], size, elements)


@pytest.fixture(scope="module")
def prior() -> FlowPrior:
    *_, (_, _, found) = fit(made(4000, 0), made(500, 1), MOST, steps=3000, hidden=96)
    return found.eval()


def drawn(prior: FlowPrior, condition: Condition | None = None, **more: Any) -> torch.Tensor:
    return prior.sample(600, torch.Generator().manual_seed(2), condition, **more)


def test_the_distribution_is_learnt(prior: FlowPrior) -> None:
    z, true = drawn(prior), made(4000, 0).z
    torch.testing.assert_close(z.mean(0), true.mean(0), atol=0.5, rtol=0)
    torch.testing.assert_close(z.std(0), true.std(0), atol=0.3, rtol=0)
    between = (z[:, 0].abs() < 1.5).float().mean()
    assert between < 0.05  # N(mean, std) would have a third there


@pytest.mark.parametrize(
    ("condition", "sign"),
    [
        (Condition(wanted=(OXYGEN,)), 1),
        (Condition(wanted=(IRON,)), -1),
        (Condition(unwanted=(OXYGEN,)), -1),
    ],
)
def test_elements_are_heard(prior: FlowPrior, condition: Condition, sign: int) -> None:
    assert (sign * drawn(prior, condition)[:, 0] > 0).float().mean() > 0.9


def test_the_property_and_the_size_are_heard(prior: FlowPrior) -> None:
    high = drawn(prior, Condition(prop=(35.0, 35.0)))
    assert abs(high[:, 1].mean() - 3.5) < 0.4
    assert high[:, 1].std() < 0.6
    small = drawn(prior, Condition(num_atoms=2))
    assert abs(small[:, 2].mean() - 2) < 0.5


def test_each_draw_can_have_a_property_of_its_own(prior: FlowPrior) -> None:
    asked = torch.tensor([5.0, 35.0, torch.nan]).repeat(200)
    low, high, free = drawn(prior, prop=asked)[:, 1].view(-1, 3).unbind(1)
    assert abs(low.mean() - 0.5) < 0.4 and abs(high.mean() - 3.5) < 0.4
    assert abs(free.mean() - 2) < 0.4 and free.std() > 0.7


def test_a_range_of_the_property_is_filled_as_the_data_fill_it(prior: FlowPrior) -> None:
    found = drawn(prior, Condition(prop=(15.0, 40.0)))[:, 1]
    true = made(4000, 0).z[:, 1]
    inside = true[(true > 1.5) & (true < 4.0)]
    assert abs(found.mean() - inside.mean()) < 0.2 and abs(found.std() - inside.std()) < 0.2
    asked = prior._properties(100.0, 200.0, 500, torch.Generator().manual_seed(0))
    assert asked.min() > 100 and asked.max() < 200 and abs(asked.mean() - 150) < 5  # none there
    rare = prior._properties(-15.0, -5.0, 500, torch.Generator().manual_seed(0))
    assert len(rare.unique()) > 400  # between the few that are there, too


def test_guidance_exaggerates(prior: FlowPrior) -> None:
    asked = Condition(prop=(35.0, 35.0))
    plain, strong = (drawn(prior, asked, guidance=g)[:, 1].mean() for g in (1.0, 3.0))
    assert strong > plain


@pytest.mark.parametrize("direction", [-1, 1])
def test_guided_draws_have_the_property_that_is_asked_for(prior: FlowPrior, direction: int) -> None:
    generator = torch.Generator().manual_seed(3)
    found = guided(small_model(), prior, Goal(direction), 600, generator)[:, 1]
    true = made(4000, 0).z[:, 1]
    assert direction * (found.mean() - true.mean()) > 1.5 * true.std()


def test_the_same_seed_gives_the_same_latents_and_steps_suffice(
    prior: FlowPrior, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = drawn(prior)
    assert torch.equal(once, drawn(prior))
    monkeypatch.setattr("cdvae_core.prior._STEPS", 40)
    assert (drawn(prior) - once).abs().mean() < 0.02


def reads(iron: float) -> CDVAE:
    """A model that reads O5 from latents of the oxides, from others `iron` of five atoms as Fe."""
    model = small_model()
    with torch.no_grad():
        for head in (model.fc_num_atoms, model.fc_composition):
            for layer in (head[0], head[-1]):
                layer.weight.zero_()
                layer.bias.fill_(-100.0 if layer is head[-1] else 0.0)
        model.fc_num_atoms[-1].bias[5] = 0.0
        model.fc_composition[0].weight[0, 0] = 1.0
        model.fc_composition[-1].bias[OXYGEN - 1] = 0.0
        model.fc_composition[-1].bias[IRON - 1] = math.log(iron / (5 - iron))
        model.fc_composition[-1].weight[IRON - 1, 0] = -50.0
    return model


def test_draws_between_two_compositions_are_drawn_again(prior: FlowPrior) -> None:
    model, plain = reads(iron=2.5), drawn(prior)
    off, kinds = read_counts(model, plain)
    assert torch.equal(off < 0.15, plain[:, 0] > 0)
    assert torch.equal(kinds == 1, plain[:, 0] > 0)
    oxides = deepcopy(prior)
    oxides.labels[:] = torch.tensor([torch.nan, 1.0])
    found = draw_whole(model, oxides, 600, torch.Generator().manual_seed(2))
    assert found.shape == plain.shape and (found[:, 0] > 0).all()
    none = Condition(unwanted=(OXYGEN,))  # but then no draw is whole
    iron = draw_whole(model, prior, 50, torch.Generator().manual_seed(2), none, 2.0)
    assert (iron[:, 0] < 0).float().mean() > 0.9


def test_draws_are_labelled_as_the_data_are(prior: FlowPrior) -> None:
    """Half of what the flow draws has two elements; of the training data it is nine of ten."""
    data = made(4000, 0)
    share = torch.linspace(0, 1, len(prior.labels))
    torch.testing.assert_close(prior.labels[:, 0], data.prop.quantile(share), atol=0.1, rtol=0)
    assert (prior.labels[:, 1] == 1).all()  # an oxide or an iron crystal, never both
    model, asked = reads(iron=2.0), deepcopy(prior)
    asked.labels[:] = torch.tensor([10.0, 2.0])
    asked.labels[:100] = torch.tensor([30.0, 1.0])
    found = draw_whole(model, asked, 1000, torch.Generator().manual_seed(2))
    many = found[:, 0] < 0
    assert abs(float(many.float().mean()) - 0.9) < 0.01  # taken evenly
    assert abs(found[many, 1].mean() - 1) < 0.3 and abs(found[~many, 1].mean() - 3) < 0.3
    wish = Condition(wanted=(OXYGEN,))
    heard = draw_whole(model, asked, 200, torch.Generator().manual_seed(2), wish)
    assert (heard[:, 0] > 0).all()  # a wish stands above the labels


def test_it_is_kept_beside_the_checkpoint(prior: FlowPrior, tmp_path: Path) -> None:
    assert load_prior(tmp_path) is None
    save_prior(prior, tmp_path)
    apart = (drawn(load_prior(tmp_path)) - drawn(prior)).norm(dim=1)  # half precision
    assert apart.quantile(0.95) < 0.05  # between two clusters a draw may fall to the other side
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[:-10])
    with pytest.raises(CheckpointError, match="cdvae prior"):
        load_prior(tmp_path)


def test_a_property_far_from_zero_is_kept_exactly(prior: FlowPrior, tmp_path: Path) -> None:
    cold = deepcopy(prior)
    cold.labels[:, 0] = -154.0 - 0.001 * torch.arange(len(cold.labels))
    cold.prop_mean.fill_(-154.321)
    save_prior(cold, tmp_path)
    again = load_prior(tmp_path)
    assert again is not None
    assert torch.equal(again.labels, cold.labels) and again.prop_mean == cold.prop_mean


def test_a_prior_of_another_version_is_not_read(prior: FlowPrior, tmp_path: Path) -> None:
    save_prior(prior, tmp_path)
    written, head = (tmp_path / FILE).read_bytes(), b'"format":"cdvae-prior-'
    assert head + b"3" in written
    (tmp_path / FILE).write_bytes(written.replace(head + b"3", head + b"1"))
    with pytest.raises(CheckpointError, match=r"is of another version: run `cdvae prior` again$"):
        load_prior(tmp_path)


def test_which_prior_is_drawn_from(prior: FlowPrior, tmp_path: Path) -> None:
    model = small_model()
    assert draw(model, tmp_path, 5, 0)[1] == "gaussian"
    with pytest.raises(ConfigError, match="run `cdvae prior"):
        draw(model, tmp_path, 5, 0, "flow")
    with pytest.raises(ConfigError, match="need the flow"):
        draw(model, tmp_path, 5, 0, None, Condition(wanted=(OXYGEN,)))
    with pytest.raises(ConfigError, match="trained without a property"):
        draw(small_model(prop=None), tmp_path, 5, 0, None, Condition(prop=(1.0, 2.0)))
    with pytest.raises(ConfigError, match="no prior is called 'cauchy'"):
        draw(model, tmp_path, 5, 0, "cauchy")
    save_prior(prior, tmp_path)
    z, name = draw(model, tmp_path, 5, 0)
    assert (z.shape, name) == ((5, WIDTH), "flow")
    assert draw(model, tmp_path, 5, 0, "gaussian")[1] == "gaussian"


def test_impossible_wishes(prior: FlowPrior) -> None:
    with pytest.raises(ConfigError, match="num_atoms 9 is not from 1 to the prior's 6"):
        drawn(prior, Condition(num_atoms=9))
    with pytest.raises(ConfigError, match="atomic number 101"):
        drawn(prior, Condition(wanted=(101,)))
    for low, high in ((1e30, 1e30), (0.0, math.inf), (math.nan, math.nan)):
        with pytest.raises(ConfigError, match="ask for one within 100"):
            drawn(prior, Condition(prop=(low, high)))
