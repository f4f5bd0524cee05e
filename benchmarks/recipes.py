"""What a recipe learns in a fixed processor time: short trainings, compared in validation.

    python benchmarks/recipes.py perov_5_small --minutes 2 --seeds 2 \\
        "losses.composition=1 recipe.learning_rate=0.001" "losses.composition=10" "optimiser=adamw"

Each quoted argument is one variant, a set of overrides of the experiment. Some words are of this
script: `optimiser=adamw` trains without Muon, `kl=rises` lets the weight of the divergence grow
from zero over the first half, `rate=constant` leaves the learning rate where it is after the
warm-up. Those of `denoising.py` change the noise and the targets: `levels=tied` draws one level for
coordinates and types, as Eq. 2 has it, `levels=strong`, `weak` and `middle` prefer such noise of
the coordinates, `types=published` divides the types' term by sigma_a also below 1,
`target=averaged` and `target=alike` average over which atom was which. XX rises over the first 3 %
of the time and falls to zero over the rest. The averaged weights are judged. For the first crystals
of the validation split, the table says how often mu knows the composition to the atom, how far off
the lengths are, for coordinates displaced by sigma and types of which half are drawn anew the
coordinate loss and the share of right types, and how many of them are reconstructed from mu with
the fast schedule, how exactly, and how many come back without two atoms in one place.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from denoising import VARIANTS, variant
from torch.optim.swa_utils import AveragedModel

from cdvae_core.data.cache import CachedSplit, LabelledBatch, open_split
from cdvae_core.decode import decode
from cdvae_core.encode import encode_split
from cdvae_core.experiment import Experiment, read
from cdvae_core.langevin import Schedule
from cdvae_core.losses import losses
from cdvae_core.metrics.reconstruction import Reconstruction, reconstruction
from cdvae_core.metrics.structure_rule import shortest_pair, structure_valid
from cdvae_core.model import CDVAE
from cdvae_core.noise import (
    likeliest_counts,
    perturb_coordinates,
    perturb_types,
    score_target,
    without_drift,
)
from cdvae_core.optimiser import MuonAdamW
from cdvae_core.structures import to_structure
from cdvae_core.train import build
from cdvae_core.trainer import moving_average

SIGMAS = (0.5, 0.1, 0.03, 0.01)
VALIDATION_CRYSTALS = 300
OWN = ("optimiser=adamw", "kl=rises", "rate=constant", *VARIANTS)


def optimiser_of(model: CDVAE, adamw: bool, learning_rate: float) -> torch.optim.Optimizer:
    if adamw:
        return torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=0.0, fused=True)
    return MuonAdamW(model, learning_rate)


def fit(
    experiment: Experiment, train: CachedSplit, seconds: float, own: Sequence[str] = ()
) -> tuple[CDVAE, int]:
    """Train for so much processor time; the averaged model and its number of steps.

    Args:
        own: which of `OWN` hold, but for those of `denoising.py` (`denoising.variant`).
    """
    recipe = experiment.recipe
    model = build(experiment, train)
    averaged = AveragedModel(model, multi_avg_fn=moving_average(recipe.ema_decay))
    optimiser = optimiser_of(model, "optimiser=adamw" in own, recipe.learning_rate)
    rates = [group["lr"] for group in optimiser.param_groups]
    generator = torch.Generator().manual_seed(recipe.seed)
    begun, steps = time.process_time(), 0
    while (done := (time.process_time() - begun) / seconds) < 1:
        chosen = torch.randint(len(train), (recipe.batch_size,), generator=generator).numpy()
        batch = train.batch(chosen, experiment.model.prop)
        falling = 1.0 if "rate=constant" in own else 1 - done
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * min(done / 0.03, falling, 1.0)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bf16-mixed"):
            record = losses(
                model, batch.crystals, batch.graph, batch.prop, generator,
                noise_draws=recipe.noise_draws,
                shuffled=recipe.shuffled_types,
                teacher_forcing=recipe.teacher_forcing_epochs is None,
            )  # fmt: skip
        weights = experiment.losses
        if "kl=rises" in own:
            weights = replace(weights, kl=weights.kl * min(1.0, 2 * done))
        optimiser.zero_grad()
        record.total(weights).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimiser.step()
        averaged.update_parameters(model)
        steps += 1
    kept = averaged.module
    assert isinstance(kept, CDVAE)
    return kept.eval(), steps


@torch.no_grad()
def denoising(model: CDVAE, batch: LabelledBatch, sigma: float) -> tuple[float, float]:
    """Coordinate loss at sigma Å, and the share of right types where half were drawn anew."""
    crystals = batch.crystals
    generator = torch.Generator().manual_seed(1)
    mu, _ = model.encode(crystals, batch.graph)
    sigma_x = torch.full((crystals.num_crystals,), sigma)
    frac = perturb_coordinates(crystals, sigma_x, generator)
    composition = model.aggregates(mu).composition.softmax(-1)
    numbers = perturb_types(crystals, composition, torch.ones_like(sigma_x), generator)
    score = model.score(mu, crystals.replace(frac_coords=frac, atomic_numbers=numbers))
    error = score.vectors - without_drift(score_target(crystals, frac, sigma_x), crystals)
    right = score.types.argmax(-1) + 1 == crystals.atomic_numbers
    return float(error.square().sum(-1).mean() / 2), float(right.float().mean())


@torch.no_grad()
def aggregates(model: CDVAE, batch: LabelledBatch) -> tuple[float, float]:
    """How often the likeliest counts are the true ones, and the mean relative length error."""
    crystals = batch.crystals
    mu, _ = model.encode(crystals, batch.graph)
    found = model.aggregates(mu)
    likeliest = likeliest_counts(found.composition.softmax(-1), crystals.num_atoms)
    counts = crystals.replace(atomic_numbers=likeliest).element_counts
    hits = int((counts == crystals.element_counts).all(1).sum())
    lengths = model.lattice(found.lattice, crystals.num_atoms).norm(dim=-1)
    true_lengths = crystals.lattice.norm(dim=-1)
    return hits / crystals.num_crystals, float((lengths / true_lengths - 1).abs().mean())


def reconstructed(model: CDVAE, val: CachedSplit, count: int) -> tuple[Reconstruction, float]:
    """The first crystals of a split, decoded from mu; and the share without atoms in one place."""
    chosen = list(range(count))
    z = encode_split(model, val, chosen, None)
    schedule = Schedule.named("fast", model.config.noise)
    names = [str(i) for i in chosen]
    found = [d.crystal for _, done in decode(model, z, names, schedule, 0) for d in done]
    sound = [
        crystal is not None
        and structure_valid(shortest_pair(to_structure(crystal)), crystal.volume)
        for crystal in found
    ]
    true = [val.crystal(i) for i in chosen]
    return reconstruction([[crystal] for crystal in found], true), float(np.mean(sound))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment")
    parser.add_argument("variants", nargs="+", metavar='"KEY=VALUE ..."')
    parser.add_argument("--minutes", type=float, default=2.0, help="of processor time each")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each variant")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    heads = "".join(f"  {s:>5} Å types" for s in SIGMAS)
    print(f"seed steps composed lengths{heads}   match    rmse  sound  variant")
    for quoted in arguments.variants:
        words = quoted.split()
        overrides = [word for word in words if word not in OWN]
        for seed in range(arguments.seeds):
            experiment = read(arguments.experiment, [*overrides, f"recipe.seed={seed}"])
            if not isinstance(experiment, Experiment):
                parser.error(f"{arguments.experiment} is not a CDVAE")
            row = judged(experiment, 60 * arguments.minutes, [w for w in words if w in OWN])
            print(f"{seed:4} {row}  {quoted}", flush=True)


def judged(experiment: Experiment, seconds: float, own: Sequence[str]) -> str:
    """One training, and its row of the table."""
    train, val = (open_split(experiment.dataset, split) for split in ("train", "val"))
    with variant(own, experiment.recipe.seed):
        model, steps = fit(experiment, train, seconds, own)
    count = min(VALIDATION_CRYSTALS, len(val))
    batch = val.batch(range(count), experiment.model.prop)
    hits, off = aggregates(model, batch)
    columns = "".join("  {:7.3f} {:5.3f}".format(*denoising(model, batch, s)) for s in SIGMAS)
    again, sound = reconstructed(model, val, count)
    found = again.metrics()
    columns += (
        f"  {found['match_rate_ungated']:6.3f}  {found['rms_dist_ungated']:6.4f} {sound:6.3f}"
    )
    return f"{steps:5} {hits:8.3f} {off:7.4f}{columns}"


if __name__ == "__main__":
    main()
