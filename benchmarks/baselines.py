"""The systems that CDVAE is compared with: crystals trained and made per second.

    python benchmarks/baselines.py                    # the small variants on perov_like
    python benchmarks/baselines.py --size published

Training is a step of the recipe's batch, forward, backward and optimiser; sampling is what `cdvae
sample` does on an untrained network; its G-SchNet does not know when to stop and is slower. Writes
`results/baselines-SIZE.json`.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from machine import report, seconds

from cdvae_core.baseline_configs import SYSTEMS
from cdvae_core.baselines.checkpoint import class_of
from cdvae_core.baselines.protocol import Baseline, Learns
from cdvae_core.data.cache import CachedSplit, open_split
from cdvae_core.experiment import BaselineExperiment, names, read

DATASET = "perov_like"
STEPS = 5
SAMPLES = 16


def training_rate(model: Baseline, split: CachedSplit, batch_size: int) -> float | None:
    """Crystals per second, None for a system that does not learn."""
    if not isinstance(model, Learns):
        return None
    optimiser = torch.optim.AdamW(model.parameters(), 1e-4)
    batch = model.examples(split).__getitems__(list(range(batch_size)))
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        optimiser.zero_grad()
        # at the end of the training, where all parts of a system are at work
        torch.stack(list(model.losses(batch, generator, 0.9).values())).sum().backward()
        optimiser.step()

    step()
    return batch_size / seconds(step, STEPS)


def sampling_rate(model: Baseline) -> float:
    model.eval()
    begun = time.perf_counter()
    made = sum(1 for _ in model.sample(SAMPLES, torch.Generator().manual_seed(0)))
    return made / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=("small", "published"), default="small")
    size = parser.parse_args().size
    split = open_split(DATASET, "train")
    rows: list[dict[str, Any]] = []
    for system in SYSTEMS:
        small = f"{system}_{DATASET}_small"
        experiment = read(small if size == "small" and small in names() else f"{system}_{DATASET}")
        assert isinstance(experiment, BaselineExperiment)
        torch.manual_seed(0)
        model = class_of(system).build(experiment.model, split)
        weights = sum(p.numel() for p in model.parameters()) / 1e6
        rows.append(
            {
                "system": system,
                "parameters, millions": weights,
                "trained, crystals/s": training_rate(model, split, experiment.recipe.micro_batch),
                "made, crystals/s": sampling_rate(model),
            }
        )
    report(f"baselines-{size}", rows)


if __name__ == "__main__":
    main()
