"""How fast crystals are measured for evaluation, beside the published script.

    python benchmarks/evaluation.py -n 10000 --reference 3785

Measures crystals of five atoms (Perov-5 if it is built, else the embedded perovskites, repeated
with another size if there are too few) and a reference, nothing kept from earlier runs, then their
coverage and distributions. Prints crystals per second, the peak memory of all processes, and how
long the composition rule takes for twenty elements.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from cdvae_core.crystal import Crystal
from cdvae_core.data.cache import find_split
from cdvae_core.evaluation.inputs import Crystals, read
from cdvae_core.evaluation.scoring import Judge
from cdvae_core.evaluation.work import Crew, Store, _idle
from cdvae_core.metrics.composition_rule import published_rule
from cdvae_core.metrics.coverage import CUTOFFS, coverage
from cdvae_core.metrics.distributions import draw_valid, earth_movers

# crystals per second of the published script on Perov-5, one process on a busy machine: 0.13 to
# 0.21 s each for its Crystal with fingerprints, SMACT included
PUBLISHED = (1 / 0.21, 1 / 0.13)


def crystals(count: int, split: str) -> Crystals:
    """So many different crystals of five atoms."""
    dataset = "perov_5" if find_split("perov_5", split) else "perov_like"
    source = read(f"{dataset}:{split}")
    items = [source.items[i % len(source)] for i in range(count)]
    swollen = [
        Crystal(
            item.atomic_numbers, item.frac_coords, item.lattice * (1 + 1e-4 * (i // len(source)))
        )
        for i, item in enumerate(items)
        if isinstance(item, Crystal)
    ]
    return Crystals(source.name, [str(i) for i in range(count)], swollen)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-n", type=int, default=10_000)
    parser.add_argument("--reference", type=int, default=3785)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    judge = Judge(Crew(jobs=arguments.jobs), "perov_5", 0, None)
    given, reference = crystals(arguments.n, "train"), crystals(arguments.reference, "test")
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        measured = judge.measure(given, Store(Path(folder) / "given"))
        known = judge.measure(reference, Store(Path(folder) / "reference"))
    spent = time.monotonic() - begun
    total = len(given) + len(reference)
    coverage(measured, known, CUTOFFS["perov_5"]).metrics()
    earth_movers([measured[i] for i in draw_valid(measured, 0)], known)
    whole = time.monotonic() - begun
    for worker in _idle:
        worker.close()  # so that their memory is known
    own, child = (
        resource.getrusage(who).ru_maxrss / 2**20
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    peak = own + arguments.jobs * child  # KiB on Linux; of the children the largest is known
    rate = total / spent
    each = rate / arguments.jobs
    low, high = (each / one for one in reversed(PUBLISHED))
    print(f"{total:,} crystals in {spent:.0f} s, {rate:.1f} per second")
    print(f"{each:.1f} per second and process, {low:.1f} to {high:.1f} times the published script")
    print(f"coverage and distributions: {whole - spent:.1f} s; peak memory {peak:.2f} GiB")
    elements = [z for z in range(1, 60) if z not in (2, 10, 18)][:20]
    begun = time.process_time()
    for seed in range(100):
        published_rule(np.repeat(elements, np.random.default_rng(seed).integers(1, 9, 20)))
    print(f"composition rule, twenty elements: {10 * (time.process_time() - begun):.2f} ms")


if __name__ == "__main__":
    main()
