"""What a model fails on: crystals that did not come back, pictured, and how many of each kind.

    python checkpoints/failures.py FOLDER picture.png

FOLDER is what `cdvae reconstruct` wrote, with one decoding of each crystal.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import matplotlib
import numpy as np
from ase.visualize.plot import plot_atoms

from cdvae_core.crystal import Crystal
from cdvae_core.evaluation.inputs import read
from cdvae_core.metrics.reconstruction import exchanged, match

matplotlib.use("agg")
from ase import Atoms
from matplotlib import pyplot as plt

NO_CRYSTAL = "no crystal at all"
KINDS = {
    "composition": "of another composition",
    "exchanged": "with elements in each other's place",
    "sites": "of the right composition, with atoms elsewhere or another cell",
}
_PICTURED = 5


def kind(decoded: Crystal, true: Crystal) -> str:
    """Which of `KINDS` a crystal that does not match is."""
    if decoded.formula != true.formula:
        return "composition"
    return "exchanged" if exchanged(decoded, true) else "sites"


def failures(folder: Path) -> tuple[int, list[tuple[Crystal, Crystal, str]], int]:
    """How many crystals were tried; those that do not match, with their original and kind; and how
    many are no crystal."""
    found = read(str(folder))
    true = found.true
    if true is None:
        raise SystemExit(f"{folder} does not say what it tries to reconstruct")
    pairs = [(one, t) for one, t in zip(found.items, true, strict=True) if isinstance(one, Crystal)]
    missed = [(t, one, kind(one, t)) for one, t in pairs if np.isnan(match(one, t))]
    return len(true), missed, len(true) - len(pairs)


def sentence(
    folder: Path, count: int, missed: list[tuple[Crystal, Crystal, str]], none: int
) -> str:
    """What the card says beside the picture."""
    if not missed and not none:
        return f"All {count:,} crystals of `{folder.name}` below come back."
    kinds = Counter(what for _, _, what in missed)
    parts = [f"{kinds[what]} {words}" for what, words in KINDS.items() if kinds[what]]
    parts += [f"{none} {NO_CRYSTAL}"] if none else []
    misses = f"{len(missed) + none} do not match: {', '.join(parts)}"
    return f"Of the {count:,} crystals in `{folder.name}`, made below, {misses}."


def draw(missed: list[tuple[Crystal, Crystal, str]], target: Path) -> None:
    """Originals above what was decoded, some of each kind, the rarest kind first."""
    kinds = Counter(what for _, _, what in missed)
    turn: list[tuple[int, int, int]] = []
    seen: Counter[str] = Counter()
    for place, (_, _, what) in enumerate(missed):
        turn.append((seen[what], kinds[what], place))
        seen[what] += 1
    shown = [missed[place] for _, _, place in sorted(turn)[:_PICTURED]]
    figure, axes = plt.subplots(
        2, len(shown), figsize=(2.4 * len(shown), 5.2), squeeze=False, layout="constrained"
    )
    for column, (true, decoded, what) in zip(axes.T, shown, strict=True):
        for axis, crystal in zip(column, (true, decoded), strict=True):
            atoms = Atoms(
                crystal.atomic_numbers,
                cell=crystal.lattice,
                scaled_positions=crystal.frac_coords % 1,
                pbc=True,
            )
            plot_atoms(atoms, axis, radii=0.45, rotation="12x,-18y,2z")
            axis.set_axis_off()
            axis.set_title(crystal.formula, fontsize=9)
        column[1].text(
            0.5, -0.04, what, transform=column[1].transAxes, ha="center", va="top", fontsize=8,
            color="#56616c",
        )  # fmt: skip
    for axis, row in zip(axes[:, 0], ("original", "decoded"), strict=True):
        axis.text(
            -0.02, 0.5, row, transform=axis.transAxes, rotation=90, ha="right", va="center",
            fontsize=9, color="#56616c",
        )  # fmt: skip
    figure.savefig(target, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="what `cdvae reconstruct` wrote")
    parser.add_argument("picture", type=Path, help="where to draw")
    arguments = parser.parse_args()
    count, missed, none = failures(arguments.folder)
    print(sentence(arguments.folder, count, missed, none))
    if missed:
        draw(missed, arguments.picture)


if __name__ == "__main__":
    main()
