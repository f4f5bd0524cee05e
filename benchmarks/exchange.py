"""How much nearer mu must come before elements are exchanged: validation crystals, several bounds.

    python benchmarks/exchange.py checkpoints/perov_like -n 300 --tries 1

Each crystal is decoded once, and the same decoding is mended with each bound: an arrangement of the
elements is taken where the distance from z to its mu falls below the bound times what it was. Bound
0 takes none. `mended` and `broken` are counted against it, over crystals that match with one of the
two only. Test crystals are left for the cards.
"""

from __future__ import annotations

import argparse
from unittest import mock

import numpy as np
import torch

from cdvae_core import consistency
from cdvae_core.consistency import Consistency
from cdvae_core.crystal import Crystal
from cdvae_core.data.cache import open_split
from cdvae_core.decode import decode
from cdvae_core.encode import encode_split
from cdvae_core.langevin import Schedule
from cdvae_core.metrics.reconstruction import Reconstruction, reconstruction
from cdvae_core.model import CDVAE

BOUNDS = (0.0, 0.3, 0.5, 0.65, 0.8, 0.9, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("checkpoint", help="folder of a CDVAE")
    parser.add_argument("-n", type=int, default=300, help="validation crystals")
    parser.add_argument("--tries", type=int, default=1, help="decodings, of which one is chosen")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = CDVAE.load(arguments.checkpoint)
    split = open_split(model.provenance["dataset"], "val")
    places = split.some(arguments.n, torch.Generator().manual_seed(0))
    true = [split.crystal(i) for i in places]
    names = [split.ids[i] for i in places]
    z = encode_split(model, split, places, None)
    schedule = Schedule.named("fast", model.config.noise)
    made = [
        item.crystal
        for _, done in decode(
            model, z, names, schedule, 0, consistency=Consistency(arguments.tries)
        )
        for item in done
    ]
    whole = np.empty(0)
    print("bound  changed  match    RMSE  mended broken", flush=True)
    for bound in BOUNDS:
        with mock.patch.object(consistency, "_NEARER", bound):
            after = [exchanged(model, row, one) for row, one in zip(z, made, strict=True)]
        found: Reconstruction = reconstruction([[one] for one in after], true)
        hit = np.isfinite(found.best)
        whole = whole if len(whole) else hit
        changed = sum(one is not other for one, other in zip(after, made, strict=True))
        metrics = found.metrics()
        print(
            f"{bound:5.2f} {changed:8} {metrics['match_rate_ungated']:6.3f} "
            f"{metrics['rms_dist_ungated']:7.4f} {int((hit & ~whole).sum()):7} "
            f"{int((whole & ~hit).sum()):6}",
            flush=True,
        )


def exchanged(model: CDVAE, z: torch.Tensor, crystal: Crystal | None) -> Crystal | None:
    return None if crystal is None else consistency.mended(model, z, crystal)


if __name__ == "__main__":
    main()
