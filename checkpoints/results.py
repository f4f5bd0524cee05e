"""Write `docs/results.md`: every report that ships with a checkpoint, beside the paper's figures.

    python checkpoints/results.py

Each table is one of the paper's (1 to 3) for one dataset. The figures are those of the reports; a
system that a table lacks has no such report, or cannot do the task.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cdvae_core.data.registry import DATASETS
from cdvae_core.evaluation import published
from cdvae_core.evaluation.glossary import MEANINGS, VARIANTS, shown, with_variant
from cdvae_core.evaluation.report import Report, read
from cdvae_core.files import write_atomically

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "results.md"
TITLES = {
    "ftcp": "FTCP",
    "dfc_vae": "Cond-DFC-VAE",
    "gschnet": "G-SchNet",
    "p_gschnet": "P-G-SchNet",
    "substitution": "Ion substitution",
    "": "CDVAE",
}
TASKS = {
    "reconstruction": ("match_rate_ungated", "rms_dist_ungated", "match_rate", "rms_dist"),
    "generation": (
        "struct_valid", "comp_valid", "cov_recall", "cov_precision", "wdist_density", "wdist_prop",
        "wdist_num_elems", "unique", "novel",
    ),
    "optimisation": ("SR5", "SR10", "SR15"),
}  # fmt: skip
HEAD = """# Results

Written by `python checkpoints/results.py` from the reports that ship in `checkpoints/*/reports`;
each checkpoint's `card.md` has the commands that made them. CDVAE and the systems that the paper
compares it with are scored by one evaluator. Those that learn are small variants after short
trainings on a processor, so the paper's rows, from full trainings, say how far there is to go and
not which system is better. Rows of one table with the same count can be compared with each other.

The *noise floor* is the training split in the model's place, at the same counts. Figures of
different counts do not compare: coverage grows with the number of crystals. The paper's rows are
over the whole test split, and over 10,000 generated crystals. Draws from CDVAE's flow take their
property and number of elements evenly from the training data, so that chance adds less to their
EMDs of energy and elements than to those of independent draws, the noise floor's among them.
"""


def titled(checkpoint: str, dataset: str, variant: str) -> str:
    """What a row is called."""
    system = checkpoint.removesuffix(dataset).removesuffix("_")
    return with_variant(TITLES[system], variant)


def reports(dataset: str, task: str) -> Iterator[tuple[str, Report]]:
    """Of each checkpoint for this dataset, CDVAE's first."""
    folders = [HERE / (f"{name}_{dataset}" if name else dataset) for name in ("", *TITLES)]
    for folder in dict.fromkeys(folders):
        for variant in VARIANTS:
            name = f"{task}_{variant}" if variant else task
            path = folder / "reports" / f"{name}.json"
            if path.is_file():
                yield titled(folder.name, dataset, variant), read(path)


def count(report: Report) -> int:
    return report.counts.get("starts") or report.counts["crystals"]


def table(dataset: str, task: str) -> str:
    """One table, empty where there is no report."""
    made = list(reports(dataset, task))
    if not made:
        return ""
    names = TASKS[task]
    head = ["", "n", *(MEANINGS[name].title for name in names)]
    rows = [
        [f"**{title}**", f"{count(report):,}", *(shown(n, report.metrics.get(n)) for n in names)]
        for title, report in made
    ]
    floors = {count(report): report.noise_floor for _, report in made if report.noise_floor}
    rows += [
        ["noise floor", f"{n:,}", *(shown(name, floor.get(name)) for name in names)]
        for n, floor in sorted(floors.items())
    ]
    rows += [
        [title, "", *(shown(name, row.get(name)) for name in names)]
        for title, row in published.rows(task, dataset).items()
    ]
    lines = [head, ["---"] * len(head), *rows]
    text = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    return f"### {task.capitalize()}\n\nAgainst {made[0][1].meta['reference']}.\n\n{text}\n"


def main() -> None:
    parts = [HEAD]
    for dataset in DATASETS:
        tables = [text for task in TASKS if (text := table(dataset, task))]
        if tables:
            parts += [f"## {dataset}\n", *tables]
    write_atomically(PAGE, "\n".join(parts).encode())
    print(f"written: {PAGE.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
