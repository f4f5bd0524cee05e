"""Crystals per second of the paper's network, in training and in evaluating the score.

    python benchmarks/network.py             # the table, and benchmarks/results/network.json
    python benchmarks/network.py --profile   # where the time of one training step goes
    python benchmarks/network.py --device cuda

The published hyper-parameters and the paper's two reference batches, beside the published code. A
batch is computed in micro-batches whose gradients add up, as in training. Every row is a process of
its own, so that its memory is its own. Machines differ, so the rate of matrix products is measured
beside every run: `times` is the plain ratio of crystals per second, `at equal rate` the same
divided by this machine's rate over the published one's. `share` is the arithmetic of all matrix
products over the time, as a part of the measured rate.
"""

from __future__ import annotations

import argparse
import resource
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from statistics import median
from typing import Any

import torch
from machine import matrix_rate, report, seconds
from published import MATRIX_RATE, SPEED
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from cdvae_core.allocator import keep_freed_memory
from cdvae_core.compiled import compile_decoder
from cdvae_core.data.cache import find_split, open_split
from cdvae_core.experiment import read
from cdvae_core.losses import losses
from cdvae_core.train import build

MICRO_BATCH = {"train": 32, "score": 64}
RUNS = 9
STAND_IN = {"perov_5": "perov_like"}  # of as many atoms


@dataclass(frozen=True)
class Row:
    """One measurement."""

    dataset: str
    batch: int
    work: str
    bf16: bool = False
    compiled: bool = False
    keep_memory: bool = True
    device: str = "cpu"

    def mode(self) -> str:
        kind = "bf16" if self.bf16 else "float32"
        extra = ", compiled" if self.compiled else ""
        return kind + extra + ("" if self.keep_memory else ", memory given back")


def work_of(row: Row) -> Callable[[], Any]:
    """What is timed: the losses and gradients of one batch, or its scores."""
    experiment = read(row.dataset)
    split = open_split(
        row.dataset if find_split(row.dataset, "val") else STAND_IN[row.dataset], "val"
    )
    prop = experiment.model.prop if experiment.model.prop in split.properties else None
    if prop is None:
        experiment = read(row.dataset, ["model.prop=null"])
    model = build(experiment, split).to(row.device)
    if row.compiled:
        compile_decoder(model)
    micro = row.batch if row.device != "cpu" else min(row.batch, MICRO_BATCH[row.work])
    parts = [
        split.batch(range(first, first + micro), prop).to(row.device)
        for first in range(0, row.batch, micro)
    ]
    generator = torch.Generator(row.device).manual_seed(0)
    z = torch.randn(micro, model.config.latent_dim, generator=generator, device=row.device)

    def autocast() -> AbstractContextManager[Any]:
        return torch.autocast(row.device, torch.bfloat16, enabled=row.bf16)

    def train() -> None:
        for batch in parts:
            with autocast():
                record = losses(model, batch.crystals, batch.graph, batch.prop, generator)
            record.total(experiment.losses).backward()
        model.zero_grad()

    @torch.no_grad()
    def score() -> None:
        for batch in parts:
            with autocast():
                model.score(z, batch.crystals)

    return train if row.work == "train" else score


def measure(row: Row) -> dict[str, Any]:
    """In a process of its own."""
    torch.set_num_threads(2)
    if row.keep_memory:
        keep_freed_memory()
    dtype = torch.bfloat16 if row.bf16 else torch.float32
    uncompiled = work_of(replace(row, compiled=False))
    with FlopCounterMode(display=False) as counter:
        uncompiled()
    work = work_of(row)
    operations = counter.get_total_flops() / 1e9
    work()
    runs = []  # the rate beside every run, because a shared machine changes from one to the next
    for _ in range(RUNS):
        rates = matrix_rate(device=row.device), matrix_rate(dtype, row.device)
        runs.append((seconds(work, 1, row.device), *rates))
    taken = median(run[0] for run in runs)
    own = median(run[2] for run in runs)
    normalised = median(1 / (run[0] * run[1]) for run in runs)
    share = median(operations / (run[0] * run[2]) for run in runs)
    if row.device == "cpu":
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    else:
        memory = torch.cuda.max_memory_allocated() / 2**30
    known = SPEED[row.dataset, row.batch]
    theirs = getattr(known, row.work)
    times = row.batch / taken / theirs
    return {
        "dataset": row.dataset,
        "batch": row.batch,
        "work": row.work,
        "mode": row.mode(),
        "crystals/s": row.batch / taken,
        "published": theirs,
        "times": times,
        "at equal rate": row.batch * normalised * MATRIX_RATE / theirs
        if row.device == "cpu"
        else None,
        "GFLOP": operations,
        "matrix rate": own,
        "share": share,
        "GB": memory,
        "published GB": getattr(known, f"{row.work}_memory"),
    }


def show_profile(device: str) -> None:
    keep_freed_memory()
    work = work_of(Row("perov_5", 256, "train", device=device))
    work()
    with profile(activities=[ProfilerActivity.CPU]) as record:
        work()
    print(record.key_averages().table(sort_by="self_cpu_time_total", row_limit=12))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    if arguments.profile:
        show_profile(arguments.device)
        return
    rows = []
    for dataset, batch in (("perov_5", 256), ("carbon_24", 64)):
        if find_split(dataset, "val") is None and dataset not in STAND_IN:
            print(f"{dataset} is not built: left out", file=sys.stderr)
            continue
        for work in ("train", "score"):
            for bf16 in (False, True):
                for compiled in (False, True):
                    rows.append(Row(dataset, batch, work, bf16, compiled, device=arguments.device))
        if arguments.device == "cpu":
            rows.append(Row(dataset, batch, "train", keep_memory=False))
    measured = []
    for row in rows:
        with get_context("spawn").Pool(1) as pool:
            measured.append(pool.apply(measure, (row,)))
        print(f"{row.dataset} {row.work} {row.mode()}: {measured[-1]['crystals/s']:.1f}/s",
              file=sys.stderr)  # fmt: skip
    name = "network" if arguments.device == "cpu" else f"network-{arguments.device}"
    report(name, measured)


if __name__ == "__main__":
    main()
