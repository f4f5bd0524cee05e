"""The training objective (Eq. 2 and the losses of D.1, D.2 and G.3) as one pure function.

What is chosen where paper and published code differ: one noise level per crystal and step stands
for the sum over levels; coordinates and types get independent levels (see `noise`); the coordinate
term is, as published, a mean over atoms of a square summed over x, y, z and halved, but d_min /
sigma_x enters less its mean over the crystal (see `noise.without_drift`); no gradient flows from
the noise into the predicted composition; the property is predicted from a sampled z. Unlike both,
the type term is divided by sigma_a only above 1: below, dividing gives nearly all weight to types
that are not noisy at all and that the decoder need only repeat. The paper has no term `counts`.

While `teacher_forcing` holds, noise is added in the true lattice; afterwards in the predicted one,
but the displacement is measured in the true one.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

from cdvae_core.config import LossWeights
from cdvae_core.crystal import CrystalBatch
from cdvae_core.graph import MultiGraph
from cdvae_core.model import CDVAE, Aggregates
from cdvae_core.noise import (
    coordinate_sigmas,
    perturb_coordinates,
    perturb_types,
    score_target,
    shuffle_types,
    type_sigmas,
    without_drift,
)


@dataclass(frozen=True, eq=False)
class Losses:
    """Every term by itself, before its weight; each a scalar."""

    num_atoms: Tensor
    lattice: Tensor
    composition: Tensor
    coordinates: Tensor
    types: Tensor
    kl: Tensor
    prop: Tensor
    counts: Tensor

    def total(self, weights: LossWeights) -> Tensor:
        terms = [getattr(self, f.name) * getattr(weights, f.name) for f in fields(self)]
        return torch.stack(terms).sum()

    def denoising(self, weights: LossWeights) -> Tensor:
        """The decoder's part, the figure that the published code validates by."""
        return self.coordinates * weights.coordinates + self.types * weights.types


def losses(
    model: CDVAE,
    crystals: CrystalBatch,
    graph: MultiGraph,
    prop: Tensor,
    generator: torch.Generator,
    *,
    teacher_forcing: bool = True,
    noise_draws: int = 1,
    shuffled: float = 0.0,
) -> Losses:
    """All terms for one batch.

    Args:
        crystals: clean crystals.
        graph: their CrystalNN multigraph.
        prop: `[crystals]`, the property in its unit, NaN where it is not known.
        generator: draws z, the levels and the noise; on the model's device.
        teacher_forcing: noise in the true lattice rather than the predicted one.
        noise_draws: noisy copies of each crystal, which share one encoding.
        shuffled: share of the crystals whose types are shuffled rather than drawn anew.
    """
    mu, logvar = model.encode(crystals, graph)
    normal = torch.randn(mu.shape, generator=generator, device=mu.device, dtype=model.dtype)
    z = mu + (0.5 * logvar).exp() * normal.to(mu.dtype)  # drawn alike in any precision
    aggregates = model.aggregates(z)
    coordinates, types = _denoising(
        model,
        z.repeat(noise_draws, 1),
        crystals.repeat(noise_draws),
        aggregates.repeat(noise_draws),
        generator,
        teacher_forcing,
        shuffled,
    )
    kl = -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(-1).mean()
    standard = model.scalers.standard_lattice(crystals.lattice, crystals.num_atoms)
    return Losses(
        num_atoms=functional.cross_entropy(aggregates.num_atoms.float(), crystals.num_atoms),
        lattice=functional.mse_loss(aggregates.lattice.float(), standard),
        composition=_composition(crystals, aggregates),
        coordinates=coordinates,
        types=types,
        kl=kl.float(),
        prop=_property(model, z, prop),
        counts=_counts(crystals, aggregates),
    )


def _denoising(
    model: CDVAE,
    z: Tensor,
    crystals: CrystalBatch,
    aggregates: Aggregates,
    generator: torch.Generator,
    teacher_forcing: bool,
    shuffled: float,
) -> tuple[Tensor, Tensor]:
    """The two terms of Eq. 2 at one random level each."""
    config, device = model.config.noise, crystals.num_atoms.device
    level = _levels(config.levels, crystals.num_crystals, generator)
    sigma_x = coordinate_sigmas(config).to(device)[level[0]].to(crystals.frac_coords.dtype)
    sigma_a = type_sigmas(config).to(device)[level[1]]
    noised = crystals
    if not teacher_forcing:
        predicted = model.lattice(aggregates.lattice.detach().float(), crystals.num_atoms)
        sound = predicted.isfinite().flatten(1).all(1)[:, None, None]  # else z is not, nor the loss
        predicted = torch.where(sound, predicted, crystals.lattice)
        noised = crystals.replace(lattice=predicted.to(crystals.lattice.dtype))
    frac = perturb_coordinates(noised, sigma_x, generator)
    composition = aggregates.composition.detach().float().softmax(-1)
    numbers = perturb_types(crystals, composition, sigma_a, generator)
    if shuffled:
        others = torch.rand(crystals.num_crystals, generator=generator, device=device) < shuffled
        moved = shuffle_types(crystals, sigma_a, generator)
        numbers = torch.where(others[crystals.crystal_of_atom], moved, numbers)
    score = model.score(z, noised.replace(frac_coords=frac, atomic_numbers=numbers))
    noisy = crystals.replace(frac_coords=frac, atomic_numbers=numbers)
    vectors, types = _targets(crystals, noisy, sigma_x, sigma_a)
    error = (score.vectors - without_drift(vectors, crystals)).square().sum(-1) / 2
    surprise = functional.cross_entropy(score.types.float(), types, reduction="none")
    surprise = surprise * _type_weight(sigma_a)[crystals.crystal_of_atom]
    return _mean_over_crystals(error, crystals), _mean_over_crystals(surprise, crystals)


def _levels(levels: int, count: int, generator: torch.Generator) -> Tensor:
    """`[2, count]`: the level of the coordinates and that of the types of each crystal."""
    return torch.randint(levels, (2, count), generator=generator, device=generator.device)


def _targets(
    crystals: CrystalBatch, noisy: CrystalBatch, sigma_x: Tensor, sigma_a: Tensor
) -> tuple[Tensor, Tensor]:
    """What is to be told from noisy crystals, in the lattice of the clean ones: the way back, in
    units of sigma_x, and the places of the types in the network's output."""
    return score_target(crystals, noisy.frac_coords, sigma_x), crystals.atomic_numbers - 1


def _type_weight(sigma_a: Tensor) -> Tensor:
    return 1 / sigma_a.clamp_min(1.0)


def _mean_over_crystals(per_atom: Tensor, crystals: CrystalBatch) -> Tensor:
    """The mean over atoms of each crystal, then over crystals: a big cell counts no more."""
    share = 1 / crystals.num_atoms[crystals.crystal_of_atom]
    return (per_atom * share).sum() / crystals.num_crystals


def _composition(crystals: CrystalBatch, aggregates: Aggregates) -> Tensor:
    """Cross entropy between the true and the predicted composition (D.2)."""
    log_c = aggregates.composition.float().log_softmax(-1)
    element = crystals.atomic_numbers - 1
    return _mean_over_crystals(-log_c[crystals.crystal_of_atom, element], crystals)


def _counts(crystals: CrystalBatch, aggregates: Aggregates) -> Tensor:
    """Squared error of the number of atoms of each element, summed over elements.

    The cross entropy hardly minds 9 atoms of 20 instead of 8; the crystal is another one.
    """
    predicted = aggregates.composition.float().softmax(-1) * crystals.num_atoms[:, None]
    return (predicted - crystals.element_counts).square().sum(-1).mean()


def _property(model: CDVAE, z: Tensor, prop: Tensor) -> Tensor:
    """Mean squared error of the standardised property over the crystals that have one."""
    if model.fc_property is None:
        return z.new_zeros((), dtype=torch.float32)
    known = ~prop.isnan()
    wanted = model.scalers.standard_prop(prop.nan_to_num()).float()
    square = (model.fc_property(z)[:, 0].float() - wanted).square()
    return torch.where(known, square, 0.0).sum() / known.sum().clamp_min(1)
