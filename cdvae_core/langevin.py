"""Annealed Langevin dynamics (Algorithm 1): from a latent to a crystal.

At level j the step size is alpha_j = epsilon sigma_j^2 / sigma_L^2. Each step moves the atoms by

    alpha_j s_X / sigma_j + sqrt(2 alpha_j) eps,

with s_X the decoder's raw output, wraps them into the cell and takes the most probable types.
With the published epsilon = sigma_L^2 = 1e-4 the step size is sigma_j^2 itself: a step goes all the
way to where the decoder believes the atoms belong (Appendix E, k alpha = 1) and adds noise again.
The noise of the last step stays in the published result; a schedule may end with steps without.

`sample` is a generator: it yields immutable steps, and to stop is not to ask for the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cdvae_core.assignment import assign_types
from cdvae_core.config import NoiseConfig
from cdvae_core.crystal import MAX_ATOMIC_NUMBER, MIN_VOLUME, CrystalBatch
from cdvae_core.errors import ConfigError
from cdvae_core.graph import periodic_images
from cdvae_core.lattice import volume, wrap
from cdvae_core.model import CDVAE, Aggregates
from cdvae_core.noise import coordinate_sigmas, geometric, likeliest_counts


@dataclass(frozen=True)
class Schedule:
    """When to add how much noise.

    Attributes:
        sigmas: the levels, Å, falling.
        steps_per_level: Langevin steps at each level.
        epsilon: step size at the last level, Å2.
        denoising_steps: steps at the last level that add no noise, after all others.
        temperature: of the noise; 1 is Langevin's, 0 leaves it out.
        keep_counts: give each atom the likeliest type under the composition that z predicts, rather
            than the likeliest of all (Algorithm 1).
    """

    sigmas: tuple[float, ...]
    steps_per_level: int
    epsilon: float
    denoising_steps: int = 0
    keep_counts: bool = False
    temperature: float = 1.0

    @property
    def total(self) -> int:
        """Evaluations of the decoder per crystal."""
        return len(self.sigmas) * self.steps_per_level + self.denoising_steps

    @classmethod
    def named(cls, name: str, noise: NoiseConfig) -> Schedule:
        """ "paper": 100 steps at each level of the model. "fast": a shortening of the levels.

        In small cells more noise than 2 Å changes nothing, so "fast" begins there, takes fewer
        steps of half the noise on more closely spaced levels, keeps the counts of the types, and
        ends with steps without noise. What each of these does is measured in
        `benchmarks/README.md`.

        Raises:
            ConfigError: no schedule has that name.
        """
        if name == "paper":
            levels = tuple(coordinate_sigmas(noise).tolist())
            return cls(levels, steps_per_level=100, epsilon=1e-4)
        if name == "fast":
            closer = geometric(min(2.0, noise.sigma_first), noise.sigma_last, 60)
            return cls(tuple(closer.tolist()), 2, noise.sigma_last**2, 5, True, temperature=0.5)
        raise ConfigError(f"no schedule is called '{name}'; there are 'paper' and 'fast'")


@dataclass(frozen=True, eq=False)
class LangevinStep:
    """The crystals after one step.

    Attributes:
        level, step: counted from 0; the steps without noise belong to the last level.
        index, total: which of how many steps this is; the last has index total - 1.
        sigma: Å.
        crystals: the batch as it stands.
        score_norm: `[crystals]`, root mean square over atoms of the decoder's raw output, the
            expected displacement in units of sigma.
    """

    level: int
    step: int
    index: int
    total: int
    sigma: float
    crystals: CrystalBatch
    score_norm: Float[Tensor, " crystals"]


def sample(
    model: CDVAE,
    z: Float[Tensor, "crystals latent"],
    *,
    schedule: str | Schedule = "paper",
    generator: torch.Generator,
    num_atoms: Int[Tensor, " crystals"] | None = None,
    atomic_numbers: Int[Tensor, " atoms"] | None = None,
    lattice: Float[Tensor, "crystals 3 3"] | None = None,
) -> Iterator[LangevinStep]:
    """Decode latents into crystals.

    Args:
        model: in evaluation mode, on the device of z.
        z: latents; mu of a crystal, a draw from q(z | M), or from the prior N(0, 1).
        schedule: a name (see `Schedule.named`) or a schedule.
        generator: on the model's device; the same seed gives the same crystals.
        num_atoms: N of each crystal, instead of the most probable one.
        atomic_numbers: a fixed composition; needs `num_atoms`. The atoms keep these types, or with
            `keep_counts` change places.
        lattice: cells in Å, instead of the predicted ones.

    Raises:
        ConfigError: an unknown schedule, or a request beyond what the model was made for.
    """
    if isinstance(schedule, str):
        schedule = Schedule.named(schedule, model.config.noise)
    _check(model, z, schedule, num_atoms, atomic_numbers, lattice)
    return _steps(model, z, schedule, generator, num_atoms, atomic_numbers, lattice)


def final(steps: Iterator[LangevinStep]) -> CrystalBatch:
    """Run a trajectory to its end.

    Raises:
        ValueError: there was no step.
    """
    crystals = None
    for step in steps:
        crystals = step.crystals
    if crystals is None:
        raise ValueError("the schedule has no steps")
    return crystals


def _check(
    model: CDVAE,
    z: Tensor,
    schedule: Schedule,
    num_atoms: Tensor | None,
    atomic_numbers: Tensor | None,
    lattice: Tensor | None,
) -> None:
    if not schedule.sigmas or not schedule.total:
        raise ConfigError("the schedule has no steps")
    if z.ndim != 2 or z.shape[1] != model.config.latent_dim:
        raise ConfigError(f"z is {list(z.shape)}, not [crystals, {model.config.latent_dim}]")
    if not bool(z.isfinite().all()):
        raise ConfigError("z holds a value that is not finite")
    if lattice is not None:
        _check_lattice(lattice, len(z))
    if num_atoms is None:
        if atomic_numbers is not None:
            raise ConfigError("a fixed composition needs num_atoms for each crystal")
        return
    if len(num_atoms) != len(z):
        raise ConfigError(f"{len(num_atoms)} numbers of atoms were given for {len(z)} latents")
    if int(num_atoms.min()) < 1:
        raise ConfigError(f"num_atoms {int(num_atoms.min())} is below 1")
    most = model.config.max_atoms
    if int(num_atoms.max()) > most:
        raise ConfigError(f"num_atoms {int(num_atoms.max())} exceeds the checkpoint's {most}")
    if atomic_numbers is not None and len(atomic_numbers) != int(num_atoms.sum()):
        raise ConfigError(
            f"{len(atomic_numbers)} types were given for {int(num_atoms.sum())} atoms in all"
        )
    if atomic_numbers is not None:
        wrong = atomic_numbers[(atomic_numbers < 1) | (atomic_numbers > MAX_ATOMIC_NUMBER)]
        if len(wrong):
            raise ConfigError(f"atomic number {int(wrong[0])} is not from 1 to {MAX_ATOMIC_NUMBER}")


def _check_lattice(lattice: Tensor, crystals: int) -> None:
    if lattice.shape != (crystals, 3, 3):
        raise ConfigError(f"the lattice is {list(lattice.shape)}, not [{crystals}, 3, 3]")
    if not bool((volume(lattice) >= MIN_VOLUME).all()):  # nor is that of NaN
        raise ConfigError(f"a given lattice has no volume of at least {MIN_VOLUME} Å3")


@torch.no_grad()
def start(
    model: CDVAE,
    z: Tensor,
    generator: torch.Generator,
    num_atoms: Tensor | None = None,
    atomic_numbers: Tensor | None = None,
    lattice: Tensor | None = None,
) -> CrystalBatch:
    """Lines 2 to 4 of Algorithm 1: predicted aggregates, uniform coordinates, types on them."""
    predicted: Aggregates = model.aggregates(z)
    if num_atoms is None:
        num_atoms = predicted.likeliest_num_atoms
    if lattice is None:
        lattice = model.lattice(predicted.lattice, num_atoms)
    if atomic_numbers is None:
        atomic_numbers = likeliest_counts(predicted.composition.softmax(-1), num_atoms)
    frac = torch.rand((len(atomic_numbers), 3), generator=generator, device=z.device, dtype=z.dtype)
    return CrystalBatch(atomic_numbers, frac, lattice.to(z.dtype), num_atoms)


def _steps(
    model: CDVAE,
    z: Tensor,
    schedule: Schedule,
    generator: torch.Generator,
    num_atoms: Tensor | None,
    atomic_numbers: Tensor | None,
    lattice: Tensor | None,
) -> Iterator[LangevinStep]:
    crystals = start(model, z, generator, num_atoms, atomic_numbers, lattice)
    decoder = model.config.decoder
    images = periodic_images(
        crystals.lattice, crystals.num_atoms, decoder.neighbours, decoder.cutoff
    )
    to_frac = torch.linalg.inv(crystals.lattice)[crystals.crystal_of_atom]
    for index, (level, step, sigma, noisy) in enumerate(_plan(schedule)):
        with torch.no_grad():  # not around the generator: the caller's mode is its own
            score = model.score(z, crystals, images)
            alpha = schedule.epsilon * (sigma / schedule.sigmas[-1]) ** 2
            move = score.vectors * (alpha / sigma)
            if noisy:
                noise = torch.randn(move.shape, generator=generator, device=z.device, dtype=z.dtype)
                move = move + noise * (2 * alpha * schedule.temperature) ** 0.5
            frac = wrap(crystals.frac_coords + torch.einsum("ai,aij->aj", move, to_frac))
            if schedule.keep_counts:
                types = assign_types(score.types, crystals, images.most_atoms)
            elif atomic_numbers is not None:
                types = atomic_numbers
            else:
                types = score.types.argmax(-1) + 1
            crystals = crystals.replace(frac_coords=frac, atomic_numbers=types)
            norm = _rms(score.vectors, crystals)
        yield LangevinStep(level, step, index, schedule.total, sigma, crystals, norm)


def _plan(schedule: Schedule) -> Iterator[tuple[int, int, float, bool]]:
    """Level, step, sigma and whether to add noise, for every evaluation in order."""
    per_level = schedule.steps_per_level
    for level, sigma in enumerate(schedule.sigmas):
        for step in range(per_level):
            yield level, step, sigma, True
    for extra in range(schedule.denoising_steps):
        yield len(schedule.sigmas) - 1, per_level + extra, schedule.sigmas[-1], False


def _rms(vectors: Tensor, crystals: CrystalBatch) -> Tensor:
    """Root mean square over the atoms of each crystal."""
    square = vectors.square().sum(-1)
    total = square.new_zeros(crystals.num_crystals).index_add(0, crystals.crystal_of_atom, square)
    return (total / crystals.num_atoms).sqrt()
