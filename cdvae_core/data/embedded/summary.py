"""What an embedded set holds, as the table of its data card.

    python -m cdvae_core.data.embedded.summary perov_like

prints the rows that stand in `perov_like.md` beside the file; a test holds the two together.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from cdvae_core.crystal import SYMBOLS
from cdvae_core.data.embedded.table import METADATA_KEY

FOLDER = Path(__file__).parent
_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def _counts(values: list, word: bool = False) -> str:
    found = sorted(Counter(values).items())
    words = {value: _WORDS[value] if word and value < len(_WORDS) else value for value, _ in found}
    return ", ".join(f"{words[value]}: {n:,}" for value, n in found)


def summary(path: Path) -> dict[str, str]:
    """Rows of the table: what, and how much of it.

    Args:
        path: of a Parquet file made by `table.write_table`.
    """
    table = pq.read_table(path)
    rows, report = table.to_pylist(), json.loads(table.schema.metadata[METADATA_KEY])
    splits = Counter(row["split"] for row in rows)
    parts = ", ".join(f"{splits[name]:,} {name}" for name in ("train", "val", "test"))
    energy = np.array([row["formation_energy_per_atom"] for row in rows])
    low, middle, high = np.percentile(energy, [5, 50, 95])
    made = {"crystals": f"{len(rows):,}: {parts}"}
    if "kind" in rows[0]:
        kinds = Counter(row["kind"] for row in rows)
        lengths = np.array([row["lengths"][0] for row in rows])
        made["kinds"] = ", ".join(f"{n:,} {kind}" for kind, n in sorted(kinds.items())[::-1])
        made["lattice constant"] = (
            f"{lengths.min():.2f} to {lengths.max():.2f} Å, median {np.median(lengths):.2f}"
        )
    else:
        made["elements in a crystal"] = _counts([len(set(row["numbers"])) for row in rows], True)
        made["atoms in a cell"] = _counts([len(row["numbers"]) for row in rows])
        made["prototypes"] = str(len({row["prototype"] for row in rows}))
    elements = {SYMBOLS[z] for row in rows for z in row["numbers"]}
    made["elements"] = str(len(elements))
    made["formation energy, eV/atom"] = (
        f"{energy.min():.2f} to {energy.max():.2f}; 5 %, 50 %, 95 %: "
        f"{low:.2f}, {middle:.2f}, {high:.2f}; positive: {100 * (energy > 0).mean():.0f} %"
    )
    made["candidates tried"] = f"{report['tried']:,}"
    left = "; ".join(f"{n} {reason}" for reason, n in report["failures"].items())
    made["left out"] = f"{report['duplicates']} duplicates; {left}"
    tools = ", ".join(f"{tool} {version}" for tool, version in report["tools"].items())
    made["seed, recipe"] = f"{report['seed']}, version {report['recipe_version']}; {tools}"
    return made


def markdown(rows: dict[str, str]) -> str:
    return "\n".join(f"| {what} | {value} |" for what, value in rows.items())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="perov_like or mp_like")
    print(markdown(summary(FOLDER / f"{parser.parse_args().name}.parquet")))


if __name__ == "__main__":
    main()
