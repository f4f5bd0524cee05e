"""How much nearer mu must come before elements are exchanged: validation crystals, several bounds.

    python benchmarks/exchange.py checkpoints/perov_like -n 300 --tries 1

Each crystal is decoded once, and the same decoding is mended with each bound: an arrangement of the
elements is taken where the distance from z to its mu falls below the bound times what it was. Bound
0 takes none. `mended` and `broken` are counted against it, over crystals that match with one of the
two only. Test crystals are left for the cards.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from decodings import there_and_back

from cdvae_core.consistency import Consistency, mended
from cdvae_core.metrics.reconstruction import reconstruction
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
    true, z, made = there_and_back(
        model, "val", arguments.n, consistency=Consistency(arguments.tries)
    )
    before = np.isfinite(reconstruction([[one] for one in made], true).best)
    print("bound  changed  match    RMSE  mended broken", flush=True)
    for bound in BOUNDS:
        after = [one and mended(model, row, one, bound) for row, one in zip(z, made, strict=True)]
        found = reconstruction([[one] for one in after], true)
        hit = np.isfinite(found.best)
        changed = sum(one is not other for one, other in zip(after, made, strict=True))
        metrics = found.metrics()
        print(
            f"{bound:5.2f} {changed:8} {metrics['match_rate_ungated']:6.3f} "
            f"{metrics['rms_dist_ungated']:7.4f} {int((hit & ~before).sum()):7} "
            f"{int((before & ~hit).sum()):6}",
            flush=True,
        )


if __name__ == "__main__":
    main()
