"""How time and memory grow: with the batch, the atoms of a cell, and the number of processes.

    python benchmarks/growth.py     # the tables, results/growth.json and results/growth.svg

The paper's network, with weights as drawn, on random crystals of 20 Å3 per atom. A training step is
the losses of one batch and their gradients, a score one evaluation of the decoder. Each row is a
process of its own, so that its memory is its own. Processes (DDP) train the small variant on
`perov_like`, with a thread each.
"""

from __future__ import annotations

import json
import resource
import tempfile
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import RESULTS, cdvae, report, seconds
from matplotlib.figure import Figure

from cdvae_core.allocator import keep_freed_memory
from cdvae_core.crystal import Crystal, CrystalBatch
from cdvae_core.experiment import read
from cdvae_core.graph import MultiGraph, knn_graph
from cdvae_core.losses import losses
from cdvae_core.model import CDVAE
from cdvae_core.scalers import Scalers

BATCHES = (8, 16, 32, 64, 128, 256)
ATOMS = (5, 10, 20, 40, 70, 100)
ATOMS_IN_A_BATCH = 200
EDGES = 12  # of the encoder, per atom
RUNS = 3
EPOCHS = 3


def made(count: int, atoms: int, model: CDVAE) -> tuple[CrystalBatch, MultiGraph]:
    """Random crystals, with the nearest neighbours as edges for the encoder."""
    rng = np.random.default_rng(atoms)
    cells = [np.eye(3) * (20 * atoms) ** (1 / 3) + rng.normal(0, 0.2, (3, 3)) for _ in range(count)]
    batch = CrystalBatch.from_crystals(
        [Crystal(rng.integers(1, 80, atoms), rng.random((atoms, 3)), cell) for cell in cells]
    )
    graph = knn_graph(batch, EDGES, model.config.decoder.cutoff)
    source = graph.neighbour.flatten()
    target = torch.arange(len(graph.neighbour)).repeat_interleave(EDGES)
    to_frac = torch.linalg.inv(batch.lattice)[batch.crystal_of_atom[target]]
    vectors = (graph.direction * graph.distance[..., None]).reshape(-1, 1, 3)
    apart = batch.frac_coords[source] - batch.frac_coords[target]
    image = ((vectors @ to_frac)[:, 0] - apart).round().long()
    return batch, MultiGraph(source, target, image)


def measure(work: str, crystals: int, atoms: int) -> dict[str, Any]:
    """In a process of its own."""
    torch.set_num_threads(2)
    keep_freed_memory()
    experiment = read("perov_5", ["model.prop=null", "model.max_atoms=100"])
    model = CDVAE(experiment.model, Scalers())
    batch, graph = made(crystals, atoms, model)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(crystals, model.config.latent_dim, generator=generator)
    unknown = torch.full((crystals,), torch.nan)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def train() -> None:
        record = losses(model, batch, graph, unknown, generator)
        record.total(experiment.losses).backward()
        model.zero_grad()

    @torch.no_grad()
    def score() -> None:
        model.score(z, batch)

    seconds(train if work == "train" else score, 1)  # the first draws memory from the system
    taken = seconds(train if work == "train" else score, RUNS)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "work": work,
        "crystals": crystals,
        "atoms": atoms,
        "seconds": taken,
        "crystals/s": crystals / taken,
        "atoms/s": crystals * atoms / taken,
        "GB of work": grown / 2**20,
    }


def distributed(processes: int) -> dict[str, Any]:
    """Crystals per second of `cdvae train`, its validation included."""
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        ddp = ("--strategy", "ddp") if processes > 1 else ()
        cdvae("train", "perov_like_small", "--run", str(run), "--devices", str(processes), *ddp,
              f"recipe.epochs={EPOCHS}", "recipe.batch_size=64", f"recipe.validate_every={EPOCHS}",
              OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")  # fmt: skip
        known = json.loads((run / "model" / "config.json").read_text())["provenance"]
    crystals = known["steps"] * 64 * processes
    return {
        "processes": processes,
        "crystals": crystals,
        "seconds": known["training_seconds"],
        "crystals/s": crystals / known["training_seconds"],
    }


def plot(by_batch: list[dict[str, Any]], by_atoms: list[dict[str, Any]], path: Path) -> None:
    figure = Figure(figsize=(9, 6), layout="constrained")
    panels = figure.subplots(2, 2)
    for column, (rows, key, word) in enumerate(
        ((by_batch, "crystals", "crystals in the batch"), (by_atoms, "atoms", "atoms in a cell"))
    ):
        for row, value in enumerate(("seconds", "GB of work")):
            axis = panels[row, column]
            for work in ("train", "score"):
                own = [r for r in rows if r["work"] == work]
                per = 1 if key == "crystals" else np.array([r["crystals"] for r in own])
                axis.plot([r[key] for r in own], np.array([r[value] for r in own]) / per, "o-",
                          label=work)  # fmt: skip
            label = value if key == "crystals" else f"{value} per crystal"
            axis.set(xscale="log", yscale="log", xlabel=word, ylabel=label)
            axis.grid(alpha=0.3)
    panels[0, 0].legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


def exponent(rows: list[dict[str, Any]], work: str) -> float:
    """Of the power of the number of atoms that the time per crystal follows."""
    own = [r for r in rows if r["work"] == work]
    slope = np.polyfit(np.log([r["atoms"] for r in own]),
                       np.log([1 / r["crystals/s"] for r in own]), 1)[0]  # fmt: skip
    return float(slope)


def main() -> None:
    def fresh(*what: Any) -> dict[str, Any]:
        with get_context("spawn").Pool(1) as pool:
            return pool.apply(measure, what)

    both = ("train", "score")
    by_batch = [fresh(work, batch, 5) for work in both for batch in BATCHES]
    by_atoms = [fresh(work, ATOMS_IN_A_BATCH // atoms, atoms) for work in both for atoms in ATOMS]
    report("growth-batch", by_batch)
    report("growth-atoms", by_atoms, exponent_train=exponent(by_atoms, "train"),
           exponent_score=exponent(by_atoms, "score"))  # fmt: skip
    report("growth-processes", [distributed(count) for count in (1, 2)])
    plot(by_batch, by_atoms, RESULTS / "growth.svg")


if __name__ == "__main__":
    main()
