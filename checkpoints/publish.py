"""Make a checkpoint folder from a training run: weights, configuration, pictures, map and card.

    python checkpoints/publish.py runs/perov_like_small checkpoints/perov_like

The figures in the card are what the `cdvae` commands above them printed.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from ase import Atoms
from ase.io import read as read_frames
from ase.io import write as write_frames
from pyarrow import parquet
from safetensors.torch import load_file

matplotlib.use("agg")
from failures import draw as draw_failures
from failures import failures, sentence
from matplotlib import pyplot as plt

from cdvae_core import CDVAE, checkpoint
from cdvae_core.baselines import checkpoint as baselines
from cdvae_core.baselines.protocol import Baseline, Learns, Optimises, Reconstructs
from cdvae_core.checkpoint import is_baseline, read_config
from cdvae_core.data.cache import open_split
from cdvae_core.data.registry import dataset_spec
from cdvae_core.evaluation.commands import LIKE
from cdvae_core.files import write_atomically
from cdvae_core.latent import ship
from cdvae_core.metrics.coverage import CUTOFFS

REPORTS = {
    "reconstruction": "reconstructed",
    "reconstruction_exchange": "exchanged",
    "reconstruction_tries": "chosen",
    "generation": "generated",
    "generation_gaussian": "as_paper",
    "generation_many": "as_many",
    "optimisation": "optimised",
    "optimisation_flow": "in_flow",
    "optimisation_guided": "guided",
}
OF_THE_FLOW = ("generated", "as_many", "in_flow", "guided")
KEPT_COLUMNS = ("id", "valid", "density", "num_elements", "energy", "rmse")


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
    names = [key[6:] for key in logged if key.startswith("train/") and key != "train/loss"]
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


def commands(
    name: str, dataset: str, n: int, samples: int, starts: int, tries: int, many: int,
    several_elements: bool, prior_steps: int | None = None,
) -> list[str]:  # fmt: skip
    """What is run for CDVAE and shown in the card, as a person types it.

    Args:
        several_elements: whether there are any to exchange.
        prior_steps: of the flow's training, where they are not the command's own.
    """
    model = f"checkpoints/{name}"
    of_test = f"{model} --dataset {dataset} --split test -n {n} --schedule fast --seed 0"
    ways = {"reconstructed": "", "exchanged": " --exchange", "chosen": f" --tries {tries}"}
    if not several_elements:
        del ways["exchanged"]
    scored = f"--reference {dataset}:test --cutoffs {cutoffs(dataset)}"
    as_many = [
        f"cdvae sample {model} -n {many} --schedule fast --seed 0 --out as_many",
        f"cdvae evaluate generation as_many {scored}",
    ]
    reconstructions = [
        line
        for out, how in ways.items()
        for line in (
            f"cdvae reconstruct {of_test}{how} --out {out}",
            f"cdvae evaluate reconstruction {out} --cutoffs {cutoffs(dataset)}",
        )
    ]
    return [
        *reconstructions,
        f"cdvae prior {model}" + (f" --steps {prior_steps}" if prior_steps else ""),
        f"cdvae sample {model} -n {samples} --schedule fast --seed 0 --out generated",
        f"cdvae evaluate generation generated {scored}",
        f"cdvae sample {model} -n {samples} --prior gaussian --schedule fast --seed 0 "
        "--out as_paper",
        f"cdvae evaluate generation as_paper {scored}",
        *(as_many if many else []),
        f"cdvae optimise {model} --minimize -n {starts} --schedule fast --seed 0 --out optimised",
        f"cdvae evaluate optimisation optimised {scored}",
        f"cdvae optimise {model} --mode flow --minimize -n {starts} --schedule fast --seed 0 "
        "--out in_flow",
        f"cdvae evaluate optimisation in_flow {scored}",
        f"cdvae optimise {model} --mode guided --minimize -n {starts} --schedule fast --seed 0 "
        "--out guided",
        f"cdvae evaluate optimisation guided {scored}",
    ]


def baseline_commands(
    system: Baseline, name: str, dataset: str, n: int, samples: int, starts: int
) -> list[str]:
    """The same for one of the systems that it is compared with, as far as the system goes."""
    model = f"checkpoints/{name}"
    scored = f"--reference {dataset}:test --cutoffs {cutoffs(dataset)}"
    lines = []
    if isinstance(system, Reconstructs):
        lines += [
            f"cdvae reconstruct {model} --dataset {dataset} --split test -n {n} --seed 0 "
            "--out reconstructed",
            f"cdvae evaluate reconstruction reconstructed --cutoffs {cutoffs(dataset)}",
        ]
    lines += [
        f"cdvae sample {model} -n {samples} --seed 0 --out generated",
        f"cdvae evaluate generation generated {scored} --timeout 10",  # FTCP makes knots of atoms
    ]
    if isinstance(system, Optimises) and system.config.prop is not None:
        lines += [
            f"cdvae optimise {model} --minimize -n {starts} --seed 0 --out optimised",
            f"cdvae evaluate optimisation optimised {scored}",
        ]
    return lines


def makes(lines: Sequence[str], folder: str) -> bool:
    """Whether one of the commands does."""
    return any(line.endswith(f"--out {folder}") for line in lines)


def ship_reports(scratch: Path, out: Path, lines: Sequence[str], only: bool) -> None:
    """The reports of these commands, small: figures, three columns per crystal, some crystals.

    Args:
        lines: all commands of the card.
        only: those of other commands stay.
    """
    folder = out / "reports"
    if not only:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(exist_ok=True)
    for name, source in REPORTS.items():
        if not makes(lines, source):
            for stale in folder.glob(f"{name}.*"):  # of a command that the card has no more
                stale.unlink()
        made = scratch / f"{source}-report"
        if not made.is_dir():
            continue
        shutil.copyfile(made / "report.json", folder / f"{name}.json")
        table = parquet.read_table(made / "per_structure.parquet")
        kept = [c for c in KEPT_COLUMNS if c in table.column_names]
        parquet.write_table(table.select(kept), folder / f"{name}.parquet", compression="zstd")
        pictures = scratch / source / "crystals.extxyz"
        frames = read_frames(pictures, ":8") if pictures.exists() else []
        if name.startswith("reconstruction"):
            frames = pairs(scratch / source, frames)[:8]
        if frames:  # a system may make nothing that is a crystal
            write_frames(folder / f"{name}.extxyz", frames, format="extxyz")


def failed(scratch: Path, out: Path, lines: Sequence[str]) -> str:
    """The card's section on what did not come back, with its picture.

    It is of the best of the card's ways to reconstruct, and the old section where that was not
    run now.
    """
    ways = ("chosen", "exchanged", "reconstructed")
    best = next((scratch / way for way in ways if makes(lines, way)), None)
    if best is None or not best.is_dir():
        before = (out / "card.md").read_text(encoding="utf-8") if (out / "card.md").exists() else ""
        _, title, section = before.partition("## Where it fails\n")
        return title + section.partition("## What it does")[0]
    count, missed, none = failures(best)
    (out / "failures.png").unlink(missing_ok=True)
    text = f"## Where it fails\n\n{sentence(best, count, missed, none)}\n\n"
    if missed:
        draw_failures(missed, out / "failures.png")
        text += "![some originals, and what was decoded](failures.png)\n\n"
    return text


def pairs(reconstructed: Path, frames: Sequence[Atoms]) -> list[Atoms]:
    """Each reconstruction after its original; some originals may have none."""
    made = {frame.info["name"]: frame for frame in frames}
    original = read_frames(reconstructed / "reference.extxyz", ":")
    entries = json.loads((reconstructed / "manifest.json").read_text())["crystals"]
    both = zip(original, (made.get(entry["name"]) for entry in entries), strict=True)
    return [frame for one, other in both if other is not None for frame in (one, other)]


def cutoffs(dataset: str) -> str:
    return dataset if dataset in CUTOFFS else LIKE[dataset]


def run(line: str, name: str, out: Path, scratch: str) -> str:
    """What a command prints, run in a scratch folder."""
    words = line.replace(f"checkpoints/{name}", str(out.resolve())).split()
    words[0] = str(Path(sys.executable).with_name("cdvae"))
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, cwd=scratch)
    said = done.stdout.strip().replace(f"{scratch}/", "")
    return said.replace(str(out.resolve()), f"checkpoints/{name}")  # no paths of this machine


def cdvae_facts(out: Path, config: dict[str, Any]) -> str:
    """What the card says of CDVAE's size."""
    millions = sum(p.numel() for p in CDVAE.load(out).parameters()) / 1e6
    model = config["model"]
    return (
        f"{millions:.2f} million parameters; encoder width {model['encoder']['hidden']}, "
        f"decoder width {model['decoder']['hidden']}, {model['decoder']['blocks']} blocks, "
        f"latent {model['latent_dim']}"
    )


def weights_facts(out: Path) -> str:
    """What the card says of the weights that ship."""
    stored = load_file(out / "model.safetensors").values()
    half = any(tensor.dtype == torch.float16 for tensor in stored)
    return f"exponential moving average, {'half' if half else 'single'} precision"


def baseline_facts(out: Path, config: dict[str, Any]) -> str:
    """What the card says of a system's size."""
    millions = sum(p.numel() for p in baselines.load(out).parameters()) / 1e6
    sizes = ", ".join(f"{key} {value}" for key, value in config["model"].items() if key != "prop")
    return f"`{config['system']}`, {millions:.2f} million parameters; {sizes}"


def training_facts(known: dict[str, Any], name: str) -> str:
    """The lines of the card on a training; a system that does not learn has none."""
    if "epochs" not in known:
        return "- Nothing was trained: the training split is kept as it is"
    hours = known["training_seconds"] / 3600
    started = known["initialised_from"]
    if started and any(part.startswith(name) for part in Path(started).parts[-2:]):
        started = "an earlier state of this model"
    begun = f"\n- Begun from the weights of {started}" if started else ""
    recipe = known["recipe"]
    losses = ", ".join(f"{name} {w:g}" for name, w in known.get("loss_weights", {}).items())
    weighed = f"; weights of the losses: {losses}" if losses else ""
    rate = recipe["learning_rate"]
    return f"""- Recipe: batches of {recipe["batch_size"]}, learning rate {rate:g}, \
weights averaged with decay {recipe["ema_decay"]:g}, {recipe["precision"]}{weighed}
- Trained for {known["epochs"]} epochs, {known["steps"]:,} steps, {hours:.2f} hours \
of wall time; {known["skipped_steps"]} steps skipped as not finite{begun}
- Hardware: {known["hardware"]}; seed {known["seed"]}"""


def card(
    out: Path, config: dict[str, Any], facts: str, weights: str, printed: dict[str, str],
    remark: str, missed: str,
) -> str:  # fmt: skip
    """The text of `card.md`."""
    known = config["provenance"]
    spec = dataset_spec(known["dataset"])
    prop = config["model"]["prop"]
    notes = "".join(f"\n- Data {note}" for note in known["data_notes"])
    learnt = f"\n- Property: `{prop}` ({spec.properties[prop]})" if prop else ""
    curves = "\n![loss curves](loss.png)\n" if (out / "loss.png").exists() else ""
    blocks = "\n\n".join(
        f"    $ {line}\n" + "\n".join(f"    {said}" for said in text.splitlines())
        for line, text in printed.items()
    )
    return f"""# {out.name}

{remark}

- Data: `{known["dataset"]}`, {spec.title}; {known["train_crystals"]:,} training crystals \
(fingerprint `{known["data_fingerprint"][:16]}`){notes}{learnt}
- Model: {facts}
{training_facts(known, out.name)}
- Weights: {weights}
{curves}
{missed}## What it does

{blocks}

RMSE is in units of (V/N)^(1/3), over matched crystals only. The paper's own figures stand beside
these in `docs/results.md`; it scores whole test splits and 10,000 generated crystals, and coverage
grows with their number.
"""


def printed_before(out: Path) -> dict[str, str]:
    """What the commands of an existing card printed, by command."""
    found: dict[str, list[str]] = {}
    command = ""
    for line in (out / "card.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("    $ "):
            command = line[6:]
            found[command] = []
        elif command and (line.startswith("    ") or not line):
            found[command].append(line[4:])
        elif line:
            command = ""
    return {command: "\n".join(lines).strip("\n") for command, lines in found.items()}


def check_same_weights(trained: Path, out: Path) -> None:
    """What is kept of a card must be of these weights, whole or in half precision."""
    config = read_config(trained)
    known = {config["weights"]}
    if not is_baseline(config):
        known.add(checkpoint.identity_of(checkpoint.state_of(CDVAE.load(trained), half=True)))
    if read_config(out)["weights"] not in known:
        raise SystemExit(f"{out} has other weights: leave out --only")


def is_measured(line: str, only: Sequence[str]) -> bool:
    """Whether a command is run, and what it printed before is not kept."""
    return not only or any(words in line for words in only)


def check_kept(lines: Sequence[str], before: dict[str, str], only: Sequence[str]) -> None:
    """Before anything is measured: whether the card has what is kept, and loses nothing."""
    for line in before:
        if not is_measured(line, only) and line not in lines:
            raise SystemExit(f"the card would lose a command: {line}")
    new_flow = any(line.startswith("cdvae prior") and is_measured(line, only) for line in lines)
    for line in (line for line in lines if not is_measured(line, only)):
        if line not in before:
            raise SystemExit(f"the card has no such command to be kept: {line}")
        if new_flow and any(f" {folder}" in line for folder in OF_THE_FLOW):
            raise SystemExit(f"this would be kept, and is of the flow before: {line}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("out", type=Path, help="folder of the checkpoint")
    parser.add_argument("-n", type=int, default=200, help="test crystals to reconstruct")
    parser.add_argument("--samples", type=int, default=1000, help="crystals to generate")
    parser.add_argument("--many", type=int, default=0, help="to generate again: the paper's 10,000")
    parser.add_argument("--starts", type=int, default=100, help="crystals to optimise from")
    parser.add_argument("--tries", type=int, default=8, help="of which one is chosen")
    parser.add_argument(
        "--prior-steps", type=int, help="of the flow's training [those of `cdvae prior`]"
    )
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="WORDS",
        help="measure commands with any of these in them, keep the rest",
    )  # fmt: skip
    parser.add_argument("--without", help="leave commands with this word out of the card")
    parser.add_argument("--remark", default="", help="a sentence on what this model is good for")
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    trained = arguments.run / "model"
    counts = (arguments.n, arguments.samples, arguments.starts)
    config = read_config(trained)
    dataset = config["provenance"]["dataset"]
    if arguments.only:
        check_same_weights(trained, out)
    logged = curves(arguments.run)
    if logged:  # else this is a checkpoint measured anew
        draw(logged, out / "loss.png")
    if is_baseline(config):
        system = baselines.load(trained)
        baselines.save(system, out, half=True)
        facts = baseline_facts(out, config)
        weights = weights_facts(out) if isinstance(system, Learns) else "none"
        lines = baseline_commands(system, out.name, dataset, *counts)
    else:
        if not arguments.only:  # what is kept was measured with the weights that are there
            checkpoint.save(CDVAE.load(trained), out, half=True)
        if dataset_spec(dataset).embedded:  # the others' crystals are not there to be shown
            ship(out, open_split(dataset, "test"))
        facts, weights = cdvae_facts(out, config), weights_facts(out)
        several = len(np.unique(open_split(dataset, "test").arrays["atomic_numbers"])) > 1
        lines = commands(
            out.name, dataset, *counts, arguments.tries, arguments.many, several,
            arguments.prior_steps,
        )  # fmt: skip
    if arguments.without:
        lines = [line for line in lines if arguments.without not in line]
    before = printed_before(out) if arguments.only else {}
    check_kept(lines, before, arguments.only)
    printed = {}
    with tempfile.TemporaryDirectory() as scratch:
        for line in lines:
            anew = is_measured(line, arguments.only)
            printed[line] = run(line, out.name, out, scratch) if anew else before[line]
            print(printed[line], flush=True)
        ship_reports(Path(scratch), out, lines, bool(arguments.only))
        missed = failed(Path(scratch), out, lines)
    text = card(out, config, facts, weights, printed, arguments.remark, missed)
    write_atomically(out / "card.md", text.encode())


if __name__ == "__main__":
    main()
