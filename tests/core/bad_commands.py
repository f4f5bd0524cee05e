"""Run by itself: what `cdvae` says to wrong input, one JSON object for all commands.

Arguments: an empty folder to work in, and a checkpoint. Each command runs as from a shell, through
`main`, but in one process, because starting one for each would take minutes.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import traceback
from pathlib import Path

from cdvae_core.cli import main

CIF = """data_x
_cell_length_a {a}
_cell_length_b 4
_cell_length_c 4
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
{atom} {symbol} {x} 0 0
"""


def commands(checkpoint: str) -> dict[str, list[str]]:
    sample = ["sample", checkpoint, "-n", "2", "--device", "cpu"]
    recon = ["reconstruct", checkpoint, "--device", "cpu", "--out", "out"]
    opt = ["optimise", checkpoint, "--device", "cpu", "--out", "out"]
    train = ["train", "perov_like_small", "--device", "cpu", "--run", "run"]
    return {
        "sample: no checkpoint": ["sample", "nowhere", "--out", "out"],
        "sample: a file": ["sample", "notes.txt", "--out", "out"],
        "sample: schedule": [*sample, "--out", "out", "--schedule", "slow"],
        "sample: too many atoms": [*sample, "--out", "out", "--num-atoms", "37"],
        "sample: no atoms": [*sample, "--out", "out", "--num-atoms", "0"],
        "sample: n": ["sample", checkpoint, "-n", "0", "--out", "out"],
        "sample: out not empty": [*sample, "--out", "full"],
        "sample: out in a file": [*sample, "--out", "notes.txt/out"],
        "sample: out missing": sample,
        "sample: device": ["sample", checkpoint, "--out", "out", "--device", "toaster"],
        "sample: way of several": [*sample, "--out", "out", "--trajectory", "--tries", "2"],
        "sample: way of exchanged": [*sample, "--out", "out", "--trajectory", "--exchange"],
        "sample: no GPU": ["sample", checkpoint, "--out", "out", "--device", "cuda:9"],
        "reconstruct: dataset": [*recon, "--dataset", "nothing"],
        "reconstruct: not built": [*recon, "--dataset", "carbon_24"],
        "reconstruct: split": [*recon, "--dataset", "carbon_24", "--split", "dev"],
        "reconstruct: from": [*recon, "--dataset", "carbon_24", "--from", "w"],
        "reconstruct: N given and drawn": [
            *recon,
            "--dataset",
            "perov_like",
            "--given",
            "N",
            "--draw-n",
        ],
        "refine: nothing there": ["refine", "nowhere", "--out", "out"],
        "refine: nothing asked": ["refine", "notes.txt", "--symmetry", "0", "--out", "out"],
        "refine: no crystals": ["refine", "notes.txt", "--out", "out"],
        "refine: potential": ["refine", "flat.cif", "--relax", "lj", "--out", "out"],
        "sample: prior": [*sample, "--out", "out", "--prior", "cauchy"],
        "sample: no flow": [*sample, "--out", "out", "--prior", "flow"],
        "sample: wishes without a flow": [*sample, "--out", "out", "--wanted", "O"],
        "sample: property": [*sample, "--out", "out", "--property", "low"],
        "sample: range upside down": [*sample, "--out", "out", "--property", "-2,-3"],
        "sample: three ends": [*sample, "--out", "out", "--property", "1,2,3"],
        "sample: no element": [*sample, "--out", "out", "--wanted", "O,Qq"],
        "optimise: no goal": opt,
        "optimise: two goals": [*opt, "--minimize", "--target", "1"],
        "optimise: property": [*opt, "--minimize", "--property", "mass"],
        "optimise: from": [*opt, "--minimize", "--from", "w"],
        "optimise: mode": [*opt, "--minimize", "--mode", "descent"],
        "optimise: guided without a flow": [*opt, "--minimize", "--mode", "guided"],
        "optimise: dataset": [*opt, "--minimize", "--dataset", "nothing"],
        "optimise: too many": [*opt, "--minimize", "--dataset", "perov_like", "-n", "5000"],
        "optimise: kept": [
            *opt,
            "--minimize",
            "--from",
            "prior",
            "-n",
            "2",
            "--steps",
            "5",
            "--kept",
            "6",
        ],
        "prior: dataset": ["prior", checkpoint, "--dataset", "nothing"],
        "train: no such": ["train", "nothing"],
        "train: key": [*train, "recipe.epoch=3"],
        "train: value": [*train, "recipe.epochs=many"],
        "train: yaml": [*train, "recipe.epochs=["],
        "train: time": [*train, "--max-time", "90"],
        "train: init": [*train, "--init", "nowhere"],
        "train: resume": [*train, "--resume"],
        "train: not built": [*train, "dataset=carbon_24"],
        "train: device": ["train", "perov_like_small", "--run", "run", "--device", "toaster"],
        "train: devices": [*train, "--devices", "two"],
        "train: strategy": [*train, "--strategy", "magic"],
        "data info: name": ["data", "info", "nothing"],
        "data fetch: name": ["data", "fetch", "nothing"],
        "data fetch: empty folder": ["data", "fetch", "perov_5", "--from", "full"],
        "data build: nothing there": ["data", "build", "nothing.csv"],
        "data build: empty file": ["data", "build", "empty.csv"],
        "data build: text": ["data", "build", "notes.txt"],
        "data build: no cif column": ["data", "build", "table.csv"],
        "data build: broken CIF": ["data", "build", "broken.cif"],
        "data build: no volume": ["data", "build", "flat.cif"],
        "data build: unknown element": ["data", "build", "element.cif"],
        "data build: NaN": ["data", "build", "nan.cif"],
        "data build: 10,648 atoms": ["data", "build", "big.cif"],
        "no such command": ["trian"],
    }


def files() -> None:
    Path("notes.txt").write_text("not a crystal\n")
    Path("empty.csv").write_text("")
    Path("table.csv").write_text("a,b\n1,2\n")
    Path("broken.cif").write_text("data_x\n_cell_length_a four\n")
    Path("flat.cif").write_text(CIF.format(a=0, atom="C1", symbol="C", x=0))
    Path("element.cif").write_text(CIF.format(a=4, atom="Zz1", symbol="Zz", x=0))
    Path("nan.cif").write_text(CIF.format(a=4, atom="C1", symbol="C", x="nan"))
    grid = [(x / 22, y / 22, z / 22) for x in range(22) for y in range(22) for z in range(22)]
    rows = "".join("C{} C {:.5f} {:.5f} {:.5f}\n".format(i, *p) for i, p in enumerate(grid[1:]))
    big = CIF.format(a=60, atom="C", symbol="C", x="0.0").replace("_b 4", "_b 60")
    Path("big.cif").write_text(big.replace("_c 4", "_c 60") + rows)
    Path("full").mkdir()
    Path("full/mine.txt").write_text("keep")


def everything() -> list[str]:
    return sorted(str(p) for p in Path.cwd().rglob("*") if p.is_file())


def run(arguments: list[str]) -> dict[str, object]:
    before, out, err = everything(), io.StringIO(), io.StringIO()
    sys.argv, code = ["cdvae", *arguments], 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code
        except Exception:  # a traceback is what a person would see
            code = 1
            traceback.print_exc()
    after = everything()
    return {
        "code": code,
        "stderr": err.getvalue(),
        "new": [path for path in after if path not in before],
        "gone": [path for path in before if path not in after],
    }


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    os.environ["CDVAE_DATA"] = str(Path.cwd() / "cache")
    files()
    print(json.dumps({name: run(argv) for name, argv in commands(sys.argv[2]).items()}))
