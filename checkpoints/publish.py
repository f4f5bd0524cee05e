"""Make a checkpoint folder from a training run: weights, configuration, loss curves, map and card.

    python checkpoints/publish.py runs/perov_like_small checkpoints/perov_like

The figures in the card are what the `cdvae` commands above them printed.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib
from ase.io import read as read_frames
from ase.io import write as write_frames
from pyarrow import parquet

matplotlib.use("agg")
from matplotlib import pyplot as plt

from cdvae_core import CDVAE
from cdvae_core.checkpoint import read_config
from cdvae_core.data.cache import open_split
from cdvae_core.data.registry import dataset_spec
from cdvae_core.evaluation.commands import LIKE
from cdvae_core.latent import ship
from cdvae_core.metrics.coverage import CUTOFFS

REPORTS = {
    "reconstruction": "reconstructed",
    "generation": "generated",
    "generation_gaussian": "as_paper",
    "optimisation": "optimised",
    "optimisation_guided": "guided",
}
KEPT_COLUMNS = ("id", "valid", "density", "num_elements", "energy", "rmse")
CURVES = ("coordinates", "types", "composition", "lattice", "num_atoms", "prop", "kl")


def curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Every logged quantity over optimiser steps, from all parts of the run."""
    found: dict[str, list[tuple[int, float]]] = {}
    for file in sorted(run.glob("logs/part_*/metrics.csv"), key=lambda p: p.stat().st_mtime):
        with file.open(newline="") as rows:
            for row in csv.DictReader(rows):
                for key, value in row.items():
                    if value and "/" in key:
                        found.setdefault(key, []).append((int(row["step"]), float(value)))
    return found


def draw(logged: dict[str, list[tuple[int, float]]], target: Path) -> None:
    """Training and validation losses, one small panel for each term."""
    names = [name for name in CURVES if f"train/{name}" in logged]
    figure, axes = plt.subplots(2, 4, figsize=(12, 5), layout="constrained", sharex=True)
    for axis, name in zip(axes.flat, names, strict=False):
        for part, colour in (("train", "#b6c2cf"), ("val", "#c0392b")):
            points = logged.get(f"{part}/{name}", [])
            axis.plot(
                *zip(*points, strict=True), color=colour, lw=1.2, label=part
            ) if points else None
        axis.set_yscale("log")
        axis.set_title(name, fontsize=10)
        axis.grid(alpha=0.25)
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    axes[0, 0].legend(frameon=False, fontsize=9)
    figure.supxlabel("optimiser step", fontsize=10)
    figure.savefig(target, dpi=110)


def commands(name: str, dataset: str, n: int, samples: int, starts: int) -> list[str]:
    """What is run and shown in the card, as a person types it."""
    model = f"checkpoints/{name}"
    return [
        f"cdvae reconstruct {model} --dataset {dataset} --split test -n {n} --schedule fast "
        "--seed 0 --out reconstructed",
        f"cdvae evaluate reconstruction reconstructed --cutoffs {cutoffs(dataset)}",
        f"cdvae prior {model}",
        f"cdvae sample {model} -n {samples} --schedule fast --seed 0 --out generated",
        f"cdvae evaluate generation generated --reference {dataset}:test "
        f"--cutoffs {cutoffs(dataset)}",
        f"cdvae sample {model} -n {samples} --prior gaussian --schedule fast --seed 0 "
        "--out as_paper",
        f"cdvae evaluate generation as_paper --reference {dataset}:test "
        f"--cutoffs {cutoffs(dataset)}",
        f"cdvae optimise {model} --minimize -n {starts} --schedule fast --seed 0 --out optimised",
        f"cdvae evaluate optimisation optimised --reference {dataset}:test "
        f"--cutoffs {cutoffs(dataset)}",
        f"cdvae optimise {model} --mode guided --minimize -n {starts} --schedule fast --seed 0 "
        "--out guided",
        f"cdvae evaluate optimisation guided --reference {dataset}:test "
        f"--cutoffs {cutoffs(dataset)}",
    ]


def ship_reports(scratch: Path, out: Path) -> None:
    """The reports of these commands, small: figures, three columns per crystal, some crystals."""
    folder = out / "reports"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, source in REPORTS.items():
        made = scratch / f"{source}-report"
        shutil.copyfile(made / "report.json", folder / f"{name}.json")
        table = parquet.read_table(made / "per_structure.parquet")
        kept = [c for c in KEPT_COLUMNS if c in table.column_names]
        parquet.write_table(table.select(kept), folder / f"{name}.parquet", compression="zstd")
        frames = read_frames(scratch / source / "crystals.extxyz", ":8")
        if name == "reconstruction":
            original = read_frames(scratch / source / "reference.extxyz", ":4")
            frames = [frame for pair in zip(original, frames[:4], strict=True) for frame in pair]
        write_frames(folder / f"{name}.extxyz", frames, format="extxyz")


def cutoffs(dataset: str) -> str:
    return dataset if dataset in CUTOFFS else LIKE[dataset]


def run(line: str, name: str, out: Path, scratch: str) -> str:
    """What a command prints, run in a scratch folder."""
    words = line.replace(f"checkpoints/{name}", str(out.resolve())).split()
    words[0] = str(Path(sys.executable).with_name("cdvae"))
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, cwd=scratch)
    return done.stdout.strip()


def card(out: Path, config: dict[str, Any], printed: dict[str, str], remark: str) -> str:
    """The text of `card.md`."""
    known = config["provenance"]
    model = CDVAE.load(out)
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    hours = known["training_seconds"] / 3600
    spec = dataset_spec(known["dataset"])
    prop = config["model"]["prop"]
    notes = "".join(f"\n- Incomplete data: {note}" for note in known["data_notes"])
    started = known["initialised_from"]
    blocks = "\n\n".join(
        f"    $ {line}\n" + "\n".join(f"    {said}" for said in text.splitlines())
        for line, text in printed.items()
    )
    begun = f"\n- Begun from the weights of {started}" if started else ""
    return f"""# {out.name}

{remark}

- Data: `{known["dataset"]}`, {spec.title}; {known["train_crystals"]:,} training crystals \
(fingerprint `{known["data_fingerprint"][:16]}`){notes}
- Property: `{prop}` ({spec.properties[prop]})
- Model: {millions:.2f} million parameters; encoder width {config["model"]["encoder"]["hidden"]}, \
decoder width {config["model"]["decoder"]["hidden"]}, \
{config["model"]["decoder"]["blocks"]} blocks, latent {config["model"]["latent_dim"]}
- Trained for {known["epochs"]} epochs, {known["steps"]:,} steps, {hours:.2f} hours of wall time; \
{known["skipped_steps"]} steps skipped as not finite{begun}
- Hardware: {known["hardware"]}; seed {known["seed"]}
- Weights: exponential moving average, float32

![loss curves](loss.png)

## What it does

{blocks}

RMSE is in units of (V/N)^(1/3), over matched crystals only. The paper reports a gated match rate
and RMSE of 97.52 % and 0.0156 for Perov-5, 55.22 % and 0.1251 for Carbon-24, 45.43 % and 0.0356 for
MP-20, on whole test splits, and scores 10,000 generated crystals: coverage grows with their number.
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("out", type=Path, help="folder of the checkpoint")
    parser.add_argument("-n", type=int, default=200, help="test crystals to reconstruct")
    parser.add_argument("--samples", type=int, default=1000, help="crystals to generate")
    parser.add_argument("--starts", type=int, default=100, help="crystals to optimise from")
    parser.add_argument("--remark", default="", help="a sentence on what this model is good for")
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    for name in ("model.safetensors", "config.json"):
        shutil.copyfile(arguments.run / "model" / name, out / name)
    config = read_config(out)
    logged = curves(arguments.run)
    if logged:  # else this is a checkpoint measured anew
        draw(logged, out / "loss.png")
    dataset = config["provenance"]["dataset"]
    if dataset_spec(dataset).embedded:  # the others' crystals are not there to be shown
        ship(out, open_split(dataset, "test"))
    printed = {}
    with tempfile.TemporaryDirectory() as scratch:
        for line in commands(out.name, dataset, arguments.n, arguments.samples, arguments.starts):
            printed[line] = run(line, out.name, out, scratch)
            print(printed[line], flush=True)
        ship_reports(Path(scratch), out)
    text = card(out, config, printed, arguments.remark)
    (out / "card.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
