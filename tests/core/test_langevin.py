"""The sampler on a known score, its options and its errors."""

from __future__ import annotations

import inspect
import math
from dataclasses import replace

import pytest
import torch
from examples import batch, prototypes, small_config, small_model
from torch.nn import functional

from cdvae_core.config import NoiseConfig
from cdvae_core.crystal import CrystalBatch
from cdvae_core.graph import PeriodicImages
from cdvae_core.langevin import LangevinStep, Schedule, final, sample
from cdvae_core.model import CDVAE, Aggregates, Score
from cdvae_core.noise import likeliest_counts, score_target

SHORT = Schedule((1.0, 0.3, 0.1, 0.03), steps_per_level=4, epsilon=9e-4, denoising_steps=3)


class Known(CDVAE):
    """Its score is that of a Gaussian of sigma around known crystals; sigma is set by the test."""

    goal: CrystalBatch
    sigma = 1.0

    def aggregates(self, z: torch.Tensor) -> Aggregates:
        sizes = functional.one_hot(self.goal.num_atoms, self.config.max_atoms + 1) * 9.0
        composition = torch.full((self.goal.num_crystals, 100), -99.0)
        composition[self.goal.crystal_of_atom, self.goal.atomic_numbers - 1] = 0.0
        lattice = self.scalers.standard_lattice(self.goal.lattice, self.goal.num_atoms)
        return Aggregates(sizes, lattice.float(), composition)

    def lattice(self, standardised: torch.Tensor, num_atoms: torch.Tensor) -> torch.Tensor:
        return self.goal.lattice

    def score(
        self, z: torch.Tensor, crystals: CrystalBatch, images: PeriodicImages | None = None
    ) -> Score:
        one = torch.ones(crystals.num_crystals, dtype=crystals.lattice.dtype)
        target = score_target(self.goal, crystals.frac_coords, one)
        types = functional.one_hot(self.goal.atomic_numbers - 1, 100) * 9.0
        return Score(target / self.sigma, types)


def known(goal: CrystalBatch, sigma: float = 1.0) -> Known:
    torch.manual_seed(0)
    model = Known(small_config(None))
    model.goal, model.sigma = goal, sigma
    return model.eval()


def latents(model: CDVAE, count: int) -> torch.Tensor:
    return torch.zeros(count, model.config.latent_dim, dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def away(goal: CrystalBatch, found: CrystalBatch) -> torch.Tensor:
    """Displacements, Å."""
    one = torch.ones(goal.num_crystals, dtype=torch.float64)
    return score_target(goal, found.frac_coords, one)


class Annealed(Known):
    """The exact score at the level that the sampler is at, as a trained decoder's is."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.levels = [sigma for sigma in SHORT.sigmas for _ in range(SHORT.steps_per_level)] + [
            SHORT.sigmas[-1]
        ] * SHORT.denoising_steps

    def score(self, z: torch.Tensor, crystals: CrystalBatch, images=None) -> Score:
        self.sigma = self.levels.pop(0)
        return super().score(z, crystals, images)


def test_an_exact_score_leads_to_the_crystal() -> None:
    goal = batch(prototypes().values())
    model = Annealed(small_config(None)).eval()
    model.goal = goal
    steps = list(sample(model, latents(model, goal.num_crystals), schedule=SHORT,
                        generator=generator()))  # fmt: skip
    assert len(steps) == SHORT.total == 4 * 4 + 3
    assert away(goal, steps[0].crystals).square().mean().sqrt() > 0.5
    # with k = epsilon / sigma_L^2 = 1 a single step without noise goes all the way (Appendix E)
    assert away(goal, steps[-1].crystals).abs().max() < 1e-9
    assert torch.equal(steps[-1].crystals.atomic_numbers, goal.atomic_numbers)
    assert torch.equal(steps[-1].crystals.lattice, goal.lattice)


def test_spread_after_the_published_last_level() -> None:
    """With k = 1 each step lands on the crystal and adds noise: a spread of sqrt(2) sigma_L."""
    goal = batch([prototypes()["diamond cubic"]] * 300)
    model = known(goal, 0.1)
    schedule = Schedule((0.1,), steps_per_level=5, epsilon=0.01)
    found = final(sample(model, latents(model, 300), schedule=schedule, generator=generator()))
    spread = away(goal, found).std()
    assert spread == pytest.approx(math.sqrt(2) * 0.1, rel=0.02)


@pytest.mark.parametrize("k", [0.05, 0.3])
def test_stationary_spread_agrees_with_theory(k: float) -> None:
    """x' = (1 - k) x + sqrt(2 k) sigma eps has the variance sigma^2 / (1 - k / 2)."""
    goal = batch([prototypes()["diamond cubic"]] * 300)
    sigma = 0.05
    model = known(goal, sigma)
    schedule = Schedule((sigma,), steps_per_level=int(6 / k), epsilon=k * sigma**2)
    found = final(sample(model, latents(model, 300), schedule=schedule, generator=generator()))
    expected = sigma / math.sqrt(1 - k / 2)
    assert away(goal, found).std() == pytest.approx(expected, rel=0.03)
    assert away(goal, found).mean().abs() < 4 * expected / (300 * 24) ** 0.5


def test_noise_is_the_same_along_every_axis_of_a_skewed_cell() -> None:
    goal = batch([prototypes()["fcc"]] * 4000)
    model = known(goal, 0.05)
    schedule = Schedule((0.05,), steps_per_level=2, epsilon=0.05**2)
    found = final(sample(model, latents(model, 4000), schedule=schedule, generator=generator()))
    off = away(goal, found)
    covariance = off.T @ off / len(off) / (2 * 0.05**2)
    assert (covariance - torch.eye(3).double()).abs().max() < 0.1


def test_step_size_follows_the_level() -> None:
    """alpha_j = epsilon sigma_j^2 / sigma_L^2: a first step moves by alpha_j s_X / sigma_j."""
    goal = batch([prototypes()["perovskite"]])
    model = known(goal, 1.0)
    schedule = replace(SHORT, sigmas=(0.4, 0.1), epsilon=1e-3)
    steps = list(sample(model, latents(model, 1), schedule=schedule, generator=generator()))
    draws = generator()
    frac = torch.rand((5, 3), generator=draws, dtype=torch.float64)
    cart = frac * 3.9
    for sigma, step in zip([0.4] * 4 + [0.1] * 4, steps, strict=False):
        alpha = 1e-3 * sigma**2 / 0.1**2
        toward = away(goal, goal.replace(frac_coords=cart / 3.9))
        noise = torch.randn((5, 3), generator=draws, dtype=torch.float64)
        cart = cart + alpha * toward / sigma + math.sqrt(2 * alpha) * noise
        assert torch.allclose(step.crystals.frac_coords, (cart / 3.9) % 1, atol=1e-9)


def test_steps_tell_where_they_are() -> None:
    model = small_model(0)
    z = torch.randn(3, 16)
    steps = list(sample(model, z, schedule=SHORT, generator=generator()))
    assert [s.index for s in steps] == list(range(19))
    assert {s.total for s in steps} == {19}
    assert [s.level for s in steps] == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 7
    assert [s.step for s in steps] == [0, 1, 2, 3] * 3 + list(range(7))
    assert [s.sigma for s in steps[::4]] == pytest.approx([1.0, 0.3, 0.1, 0.03, 0.03])
    for step in steps:
        frac = step.crystals.frac_coords
        assert (frac >= 0).all() and (frac < 1).all()
        assert step.score_norm.shape == (3,) and step.score_norm.isfinite().all()
        assert torch.equal(step.crystals.num_atoms, steps[0].crystals.num_atoms)
    with pytest.raises(AttributeError):
        steps[0].sigma = 2.0


def test_score_norm_is_the_rms_displacement_in_sigma() -> None:
    goal = batch([prototypes()["perovskite"], prototypes()["fcc"]])
    model = known(goal, 0.5)
    first, second, *_ = sample(model, latents(model, 2), schedule=SHORT, generator=generator())
    off = away(goal, first.crystals)  # the second step's score is that of the first step's crystals
    expected = torch.stack(
        [part.square().sum(-1).mean().sqrt() / 0.5 for part in off.split([5, 1])]
    )
    assert torch.allclose(second.score_norm, expected)


def equal(one: CrystalBatch, other: CrystalBatch) -> bool:
    return all(torch.equal(getattr(one, f), getattr(other, f))
               for f in ("atomic_numbers", "frac_coords", "lattice", "num_atoms"))  # fmt: skip


def test_the_same_seed_gives_the_same_crystals() -> None:
    model, z = small_model(0), torch.randn(4, 16)

    def decode(seed: int) -> CrystalBatch:
        return final(sample(model, z, schedule=SHORT, generator=generator(seed)))

    assert equal(decode(1), decode(1))
    assert not equal(decode(1), decode(2))
    assert torch.equal(decode(1).lattice, decode(2).lattice)


def test_steps_come_one_by_one_and_stopping_is_not_asking() -> None:
    model, calls = small_model(0), []
    score = model.score
    model.score = lambda *args: calls.append(1) or score(*args)
    steps = sample(model, torch.randn(2, 16), schedule="paper", generator=generator())
    assert inspect.isgenerator(steps) and not calls
    first = next(steps)
    kept = first.crystals.frac_coords.clone()
    next(steps)
    steps.close()
    assert len(calls) == 2
    assert torch.equal(first.crystals.frac_coords, kept)  # steps are immutable


def test_number_of_atoms_types_and_lattice_can_be_given() -> None:
    model, z = small_model(0), torch.randn(3, 16)
    sizes = torch.tensor([1, 7, 4])
    numbers = torch.tensor([26] + [14, 8, 8, 8, 8, 8, 8] + [6] * 4)
    cells = torch.diag_embed(torch.tensor([[3.0, 4, 5], [5, 5, 9], [2.5, 2.5, 7]]))
    free = final(sample(model, z, schedule=SHORT, generator=generator(), num_atoms=sizes))
    assert torch.equal(free.num_atoms, sizes)
    fixed = sample(
        model, z, schedule=SHORT, generator=generator(),
        num_atoms=sizes, atomic_numbers=numbers, lattice=cells,
    )  # fmt: skip
    for step in fixed:
        assert torch.equal(step.crystals.atomic_numbers, numbers)
        assert torch.equal(step.crystals.lattice, cells)


def test_predicted_size_lattice_and_composition_are_where_it_starts() -> None:
    model, z = small_model(0), torch.randn(5, 16)
    start = next(iter(sample(model, z, schedule=SHORT, generator=generator()))).crystals
    with torch.no_grad():
        said = model.aggregates(z)
        assert torch.equal(start.num_atoms, said.num_atoms[:, 1:].argmax(-1) + 1)
        assert torch.equal(start.lattice, model.lattice(said.lattice, start.num_atoms))


def test_lattice_alone_can_be_given() -> None:
    model, z = small_model(0), torch.randn(2, 16)
    cells = 6 * torch.eye(3).repeat(2, 1, 1)
    assert torch.equal(
        final(sample(model, z, schedule=SHORT, generator=generator(), lattice=cells)).lattice, cells
    )


def test_denoising_steps_draw_nothing() -> None:
    model, z = small_model(0), torch.randn(2, 16)
    without = replace(SHORT, denoising_steps=0)
    one, other = generator(), generator()
    long = list(sample(model, z, schedule=SHORT, generator=one))
    short = list(sample(model, z, schedule=without, generator=other))
    assert equal(long[len(short) - 1].crystals, short[-1].crystals)
    assert torch.equal(one.get_state(), other.get_state())


def test_named_schedules() -> None:
    paper = Schedule.named("paper", NoiseConfig())
    assert (len(paper.sigmas), paper.steps_per_level, paper.epsilon) == (50, 100, 1e-4)
    assert paper.sigmas[0] == 10 and paper.sigmas[-1] == pytest.approx(0.01)
    assert paper.denoising_steps == 0 and paper.total == 5000
    fast = Schedule.named("fast", NoiseConfig())
    assert fast.total < 200 and fast.sigmas[-1] == pytest.approx(0.01)
    assert fast.epsilon == pytest.approx(fast.sigmas[-1] ** 2)
    assert fast.temperature < 1 == paper.temperature


def test_final_of_nothing_is_an_error() -> None:
    nothing: list[LangevinStep] = []
    with pytest.raises(ValueError, match="no steps"):
        final(iter(nothing))


class Greedy(Known):
    """Every atom is surest of being the first element of its crystal."""

    def score(self, z: torch.Tensor, crystals: CrystalBatch, images=None) -> Score:
        found = super().score(z, crystals, images)
        first = self.goal.num_atoms.cumsum(0) - self.goal.num_atoms
        wanted = self.goal.atomic_numbers[first][self.goal.crystal_of_atom] - 1
        return Score(found.vectors, functional.one_hot(wanted, 100) * 9.0)


@pytest.mark.parametrize("keep", [True, False])
def test_counts_are_kept_where_the_schedule_says_so(keep: bool) -> None:
    goal = batch([prototypes()["perovskite"]] * 2)
    model = Greedy(small_config(None)).eval()
    model.goal = goal
    schedule = replace(SHORT, keep_counts=keep)
    z = latents(model, 2)
    begun = likeliest_counts(model.aggregates(z).composition.softmax(-1), goal.num_atoms)
    for step in sample(model, z, schedule=schedule, generator=generator()):
        for found, true in zip(step.crystals.atomic_numbers.split(5), begun.split(5), strict=True):
            assert (found.sort().values.equal(true.sort().values)) is keep


def test_atoms_of_a_given_composition_change_places_where_counts_are_kept() -> None:
    """Given types stay where they are; where counts are kept, only their numbers do."""
    goal = batch([prototypes()["perovskite"]])
    model = Greedy(small_config(None)).eval()
    model.goal = goal
    told = torch.tensor([8, 8, int(goal.atomic_numbers[0]), 13, 8])
    keeps = replace(SHORT, keep_counts=True)
    more = {"num_atoms": goal.num_atoms, "atomic_numbers": told}
    z = latents(model, 1)
    for schedule, stay in ((SHORT, True), (keeps, False)):
        model.goal = goal
        last = final(sample(model, z, schedule=schedule, generator=generator(), **more))
        assert last.atomic_numbers.sort().values.equal(told.sort().values)
        assert last.atomic_numbers.equal(told) is stay
