"""How a message should cross to the other end of its edge, and whether 7 Å should limit the graph.

    python benchmarks/decoder_graph.py --dataset mp_like --minutes 3

GemNet lets every edge c -> a hear its reverse a -> c. A directed KNN graph lacks some reverses.
Each variant is trained for the same processor time from the same seed, its learning rate falling to
nothing over that time, and scored by the coordinate and type losses on the validation split under
the same noise:

    envelope   the reverse edge where there is one, weighted by its envelope (the default)
    atom       instead, the mean message of the atom at the other end, enveloped
    nothing    no coupling
    12 Å       as `envelope`, with a cutoff of 12 Å instead of 7 Å
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch
from recipes import fit
from torch import Tensor

from cdvae_core.data.cache import CachedSplit, open_split
from cdvae_core.experiment import read
from cdvae_core.graph import KnnGraph
from cdvae_core.losses import losses
from cdvae_core.model import CDVAE
from cdvae_core.nn.gemnet import TripletInteraction

BATCH = 32


def atom_term(mixed: Tensor, graph: KnnGraph) -> Tensor:
    """The mean message into each atom, as heard by the atoms that it is a neighbour of."""
    weight = graph.envelope[..., None].to(mixed.dtype)
    mean = (mixed * weight).sum(1) / weight.sum(1).clamp_min(1e-6)
    return mean[graph.neighbour]


def nothing(mixed: Tensor, graph: KnnGraph) -> Tensor:
    return torch.zeros_like(mixed)


VARIANTS = {
    "envelope": (staticmethod(TripletInteraction.across), 7.0),
    "atom": (staticmethod(atom_term), 7.0),
    "nothing": (staticmethod(nothing), 7.0),
    "12 Å": (staticmethod(TripletInteraction.across), 12.0),
}


@torch.no_grad()
def validate(model: CDVAE, val: CachedSplit, prop: str | None, draws: int) -> tuple[float, float]:
    """Coordinate and type loss over the validation split."""
    generator = torch.Generator().manual_seed(1)
    total, count = torch.zeros(2), 0
    for first in range(0, len(val), BATCH):
        batch = val.batch(range(first, min(first + BATCH, len(val))), prop)
        record = losses(
            model, batch.crystals, batch.graph, batch.prop, generator, noise_draws=draws
        )
        size = batch.crystals.num_crystals
        total += torch.stack([record.coordinates, record.types]) * size
        count += size
    coordinates, types = (total / count).tolist()
    return coordinates, types


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", default="mp_like")
    parser.add_argument("--minutes", type=float, default=3.0, help="of processor time per variant")
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    train, val = open_split(arguments.dataset, "train"), open_split(arguments.dataset, "val")
    default = VARIANTS["envelope"][0]
    print(f"{'variant':10} {'seed':>4} {'steps':>6} {'coordinates':>12} {'types':>8}")
    for name, (across, cutoff) in VARIANTS.items():
        TripletInteraction.across = across
        for seed in range(arguments.seeds):
            experiment = read(f"{arguments.dataset}_small", [f"recipe.seed={seed}"])
            decoder = replace(experiment.model.decoder, cutoff=cutoff)
            experiment = replace(experiment, model=replace(experiment.model, decoder=decoder))
            model, steps = fit(experiment, train, 60 * arguments.minutes)
            coordinates, types = validate(model, val, experiment.model.prop, draws=4)
            print(f"{name:10} {seed:4} {steps:6} {coordinates:12.4f} {types:8.3f}", flush=True)
        TripletInteraction.across = default


if __name__ == "__main__":
    main()
