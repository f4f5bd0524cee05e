"""What weights of half the bytes cost: the same test crystals and noise with each precision.

    python benchmarks/precision.py runs/perov_5_small/model -n 300

The weights are rounded and computed with in float32, as a checkpoint in half precision is. A match
is counted as lost or won against the first row, crystal by crystal: the sampler is chaotic, so that
a change of rounding alone exchanges some, and a precision is too low where it loses more than it
wins by more than chance, the root of their sum.
"""

from __future__ import annotations

import argparse
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from decodings import there_and_back
from safetensors.torch import load_file

from cdvae_core.metrics.reconstruction import reconstruction
from cdvae_core.model import CDVAE

PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def rounded(model: CDVAE, precision: torch.dtype) -> CDVAE:
    """A copy whose trained weights hold only what the precision can."""
    copy = deepcopy(model)
    for weight in copy.parameters():
        weight.data = weight.data.to(precision).float()
    return copy


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("checkpoint", help="folder of a CDVAE, with weights in float32")
    parser.add_argument("-n", type=int, default=300, help="test crystals")
    parser.add_argument("--seed", type=int, default=0, help="of the noise")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    stored = load_file(Path(arguments.checkpoint) / "model.safetensors").values()
    if any(tensor.dtype == torch.float16 for tensor in stored):
        parser.error(f"{arguments.checkpoint} is in half precision already: take a run's model")
    model = CDVAE.load(arguments.checkpoint)
    mu, whole = torch.empty(0), np.empty(0)
    print(
        "precision  MB of weights  change of mu  composed   match    RMSE    lost   won", flush=True
    )
    for name, precision in PRECISIONS.items():
        now = rounded(model, precision)
        true, z, made = there_and_back(now, "test", arguments.n, arguments.seed)
        found = reconstruction([[one] for one in made], true)
        hit = np.isfinite(found.best)
        if precision is torch.float32:
            mu, whole = z, hit
        size = sum(weight.numel() for weight in model.parameters()) * precision.itemsize / 1e6
        change = float((z - mu).abs().mean() / mu.std())
        composed = np.mean(
            [
                one is not None and one.formula == t.formula
                for one, t in zip(made, true, strict=True)
            ]
        )
        metrics = found.metrics()
        print(
            f"{name:9} {size:13.2f} {change:13.5f} {composed:9.3f} "
            f"{metrics['match_rate_ungated']:7.3f} {metrics['rms_dist_ungated']:7.4f} "
            f"{int((whole & ~hit).sum()):7} {int((hit & ~whole).sum()):5}",
            flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
