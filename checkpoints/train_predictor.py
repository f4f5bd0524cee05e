"""Train an independent property network on an embedded set: a judge for what CDVAE makes of it.

    python checkpoints/train_predictor.py perov_like      # minutes on one core

It is a small DimeNet++ on the property alone, from another seed and on another split than CDVAE's
(all three splits together, cut again at random), written to `cdvae_core/metrics/predictors/`.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from cdvae_core.data.cache import CachedSplit, open_split
from cdvae_core.data.format import PROPERTY, SplitInfo, concatenate
from cdvae_core.data.registry import SPLITS, dataset_spec
from cdvae_core.metrics.predictor import FOLDER, About, Predictor
from cdvae_core.nn.dimenet import DimeNetPlusPlus

SEED = 20211  # of the weights and of the split
NETWORK: dict[str, int | str] = {"hidden": 96, "blocks": 3, "int_emb": 48, "out_emb": 128}
BATCH = 64
LEARNING_RATE = 2e-3
HELD_OUT = 0.1


def everything(dataset: str) -> CachedSplit:
    """All three splits as one."""
    arrays = concatenate([open_split(dataset, split).arrays for split in SPLITS])
    properties = {n.removeprefix(PROPERTY): a for n, a in arrays.items() if n.startswith(PROPERTY)}
    return CachedSplit(SplitInfo(dataset, "all"), arrays, properties)


def error(encoder: DimeNetPlusPlus, data: CachedSplit, index: np.ndarray, about: About) -> float:
    """The mean absolute error, in the property's unit."""
    predictor = Predictor(encoder, about)
    off = []
    for first in range(0, len(index), BATCH):
        batch = data.batch(index[first : first + BATCH], about.prop)
        predicted = predictor.predict_graphs(batch.crystals, batch.graph)
        off.append(np.abs(predicted - batch.prop.numpy()))
    encoder.train()
    return float(np.concatenate(off).mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset")
    parser.add_argument("--epochs", type=int, default=60)
    arguments = parser.parse_args()
    spec, data = dataset_spec(arguments.dataset), everything(arguments.dataset)
    prop = spec.default_property
    rng = np.random.default_rng(SEED)
    order = rng.permutation(np.flatnonzero(np.isfinite(data.properties[prop])))
    test, train = np.split(order, [int(HELD_OUT * len(order))])
    values = data.properties[prop][train]
    about = About(prop, spec.properties[prop], values.mean(), values.std(), NETWORK, "")
    torch.manual_seed(SEED)
    encoder = DimeNetPlusPlus(out_dim=1, **NETWORK)
    optimiser = torch.optim.AdamW(encoder.parameters(), LEARNING_RATE, weight_decay=0.01)
    steps = arguments.epochs * (len(train) // BATCH)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps)
    for epoch in range(arguments.epochs):
        mixed = rng.permutation(train)
        for first in range(0, len(mixed) - BATCH + 1, BATCH):
            batch = data.batch(mixed[first : first + BATCH], prop)
            wanted = (batch.prop - about.mean) / about.std
            loss = (encoder(batch.crystals, batch.graph)[:, 0] - wanted).abs().mean()
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
            optimiser.step()
            plan.step()
        if epoch % 10 == 9 or epoch + 1 == arguments.epochs:
            print(f"epoch {epoch + 1}: {error(encoder, data, test, about):.4f} {about.unit}",
                  flush=True)  # fmt: skip
    off = error(encoder, data, test, about)
    source = (
        f"this package, on {len(train):,} of {len(order):,} crystals of {spec.name}; mean absolute "
        f"error {off:.4f} {about.unit} on the other {len(test):,}"
    )
    known = About(prop, about.unit, float(about.mean), float(about.std), NETWORK, source)
    Predictor(encoder, known).save(FOLDER / f"{spec.name}.safetensors")
    print(source)


if __name__ == "__main__":
    main()
