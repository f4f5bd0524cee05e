"""The `cdvae` command from a shell: a small project from crystals to crystals, and wrong input."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from ase import Atoms
from ase.io import read as read_frames
from ase.io import write as write_frames
from examples import perovskites, small_config, small_model

from cdvae_core import CDVAE
from cdvae_core.config import to_dict
from cdvae_core.data.registry import DATASETS
from cdvae_core.evaluation.inputs import read
from cdvae_core.structures import read_crystals

HERE = Path(__file__).parent
COMMAND = Path(sys.executable).with_name("cdvae")  # DDP starts this file again for each process


def cdvae(project: Path, *arguments: str, code: int = 0) -> str:
    """Standard output of a command that runs in the project's folder."""
    done = subprocess.run(
        [str(COMMAND), *arguments],
        cwd=project,
        env=os.environ | {"CDVAE_DATA": str(project / "cache")},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == code, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty perovskites, built into a dataset, and a recipe for a small model."""
    folder = tmp_path_factory.mktemp("project")
    frames = []
    for number, crystal in enumerate(perovskites(30)):
        atoms = Atoms(
            crystal.atomic_numbers,
            cell=crystal.lattice,
            scaled_positions=crystal.frac_coords,
            pbc=True,
        )
        atoms.info |= {"id": f"p{number}", "energy_per_atom": crystal.atomic_numbers[0] / 10}
        frames.append(atoms)
    write_frames(folder / "mine.extxyz", frames, format="extxyz")
    experiment = {
        "dataset": "mine",
        "model": to_dict(small_config("energy_per_atom")),
        "recipe": {"epochs": 2, "batch_size": 8, "micro_batch": 8, "validate_every": 1},
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(experiment))
    cdvae(folder, "data", "build", "mine.extxyz", "--workers", "1")
    return folder


@pytest.fixture(scope="module")
def trained(project: Path) -> Path:
    cdvae(project, "train", "mine.yaml", "recipe.epochs=1", "--run", "run", "--device", "cpu")
    return project / "run" / "model"


def test_data_list_and_info(project: Path) -> None:
    listed = cdvae(project, "data", "list")
    assert all(name in listed for name in (*DATASETS, "mine"))
    assert "energy_per_atom" in cdvae(project, "data", "info", "mine")


def test_train(trained: Path) -> None:
    model = CDVAE.load(trained)
    assert model.provenance["dataset"] == "mine" and model.provenance["steps"] == 3
    assert model.config == small_config("energy_per_atom")
    assert model.scalers.lattice_std[3] < 1e-4  # every angle is 90


def test_print_config_needs_no_data(project: Path) -> None:
    printed = cdvae(project, "train", "mp_20", "recipe.epochs=5", "--print-config")
    values = yaml.safe_load(printed)
    assert values["recipe"]["epochs"] == 5 and values["dataset"] == "mp_20"


def test_sample(trained: Path, project: Path) -> None:
    out = project / "sampled"
    arguments = ("sample", str(trained), "-n", "3", "--num-atoms", "4", "--seed", "5",
                 "--device", "cpu", "--batch-size", "2")  # fmt: skip
    said = cdvae(project, *arguments, "--out", str(out), "--trajectory")
    assert "3 crystals" in said
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["seed"] == 5 and len(manifest["crystals"]) == 3
    assert manifest["schedule"]["steps_per_level"] == 2
    crystals = [c for entry in manifest["crystals"] for c in read_crystals(out / entry["cif"])]
    assert [c.num_atoms for c in crystals] == [4] * 3
    assert len(read_frames(out / "crystals.extxyz", index=":")) == 3
    assert len(list(out.glob("*.trajectory.extxyz"))) == 3
    cdvae(project, *arguments, "--out", str(project / "again"))
    for name in ("sample-00000.cif", "sample-00002.cif"):
        assert (out / name).read_text() == (project / "again" / name).read_text()


def test_reconstruct(trained: Path, project: Path) -> None:
    out = project / "reconstructed"
    said = cdvae(
        project, "reconstruct", str(trained), "--dataset", "mine", "--split", "train",
        "-n", "2", "--k", "2", "--from", "z", "--tries", "2", "--exchange", "--device", "cpu",
        "--out", str(out),
    )  # fmt: skip
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["tries"] == 2 and manifest["exchange"] is True
    assert len(manifest["crystals"]) == 4 and len(manifest["ids"]) == 2
    assert 0 <= manifest["match_rate"] <= 1
    assert "of 2" in said and "StructureMatcher" in said
    said = cdvae(project, "refine", "reconstructed", "--out", "refined")
    assert "Over 4 of 4 crystals" in said and "match" in said
    assert (project / "refined" / "reference.extxyz").is_file()
    assert "Over 4 crystals, 2 of the reference, 2 scored for each." in cdvae(
        project, "evaluate", "reconstruction", "refined", "--cutoffs", "perov_5"
    )
    again = json.loads((project / "refined" / "manifest.json").read_text())
    assert [one["name"] for one in again["crystals"]] == [
        one["name"] for one in manifest["crystals"]
    ]
    assert (again["k"], again["dataset"], again["split"]) == (2, "mine", "train")


def test_n_is_drawn_from_its_distribution_if_asked(trained: Path, project: Path) -> None:
    """From a model that finds every N as likely, the likeliest is always one; draws are not."""
    model = CDVAE.load(trained)
    for weight in model.fc_num_atoms.parameters():
        torch.nn.init.zeros_(weight)
    model.save(project / "undecided")
    sizes = []
    for name, more in (("likeliest", []), ("drawn", ["--draw-n"])):
        cdvae(
            project, "reconstruct", "undecided", "--dataset", "mine", "--split", "train",
            "-n", "12", "--device", "cpu", "--out", name, *more,
        )  # fmt: skip
        sizes.append({len(frame) for frame in read_frames(project / name / "crystals.extxyz", ":")})
    assert len(sizes[0]) == 1 < len(sizes[1])


def test_a_baseline_goes_the_same_way(project: Path) -> None:
    experiment = {
        "system": "ftcp",
        "dataset": "mine",
        "model": {
            "prop": "energy_per_atom", "max_atoms": 5, "channels": 4, "dense_hidden": 16,
            "latent_dim": 8, "max_elements": 5,
        },
        "recipe": {"epochs": 2, "batch_size": 8, "micro_batch": 8, "validate_every": 1},
    }  # fmt: skip
    (project / "ftcp.yaml").write_text(yaml.safe_dump(experiment))
    cdvae(project, "train", "ftcp.yaml", "recipe.epochs=1", "--run", "ftcp", "--device", "cpu")
    model = "ftcp/model"
    on_cpu = ("--device", "cpu", "--seed", "1")
    cdvae(project, "sample", model, "-n", "4", "--out", "ftcp-new", *on_cpu)
    manifest = json.loads((project / "ftcp-new" / "manifest.json").read_text())
    assert manifest["system"] == "ftcp" and len(manifest["crystals"]) == 4
    assert all("cif" in one or one["problem"] for one in manifest["crystals"])
    said = cdvae(
        project, "reconstruct", model, "--dataset", "mine", "--split", "train", "-n", "3",
        "--out", "ftcp-back", *on_cpu,
    )  # fmt: skip
    assert "of 3 decodings" in said
    cdvae(
        project, "optimise", model, "--maximize", "-n", "2", "--kept", "2", "--split", "train",
        "--property", "energy_per_atom", "--out", "ftcp-better", *on_cpu,
    )  # fmt: skip
    better = json.loads((project / "ftcp-better" / "manifest.json").read_text())
    assert better["starts"] == 2 and len(better["crystals"]) == 4
    cdvae(project, "optimise", model, "--maximize", "--property", "band_gap", "--out", "no", code=2)
    cdvae(project, "sample", model, "--wanted", "O", "--out", "no", code=2)
    assert not (project / "no").exists()
    cdvae(project, "prior", model, code=2)


def same_weights(one: Path, other: Path) -> bool:
    weights, others = (CDVAE.load(path).state_dict() for path in (one, other))
    return all(torch.equal(weights[name], others[name]) for name in weights)


@pytest.mark.slow
def test_optimise_and_what_it_leaves(trained: Path, project: Path) -> None:
    out = project / "better"
    said = cdvae(
        project, "optimise", str(trained), "--minimize", "-n", "2", "--steps", "40", "--kept", "4",
        "--split", "train", "--out", str(out),
    )  # fmt: skip
    means = re.findall(r"(\S+) at the (?:starts|last)", said)
    assert "predicted energy_per_atom" in said and float(means[1]) < float(means[0])
    manifest = json.loads((out / "manifest.json").read_text())
    names = [entry["name"] for entry in manifest["crystals"]]
    assert names == [f"step-{s:05d}-start-{i:05d}" for s in (10, 20, 30, 40) for i in (0, 1)]
    assert manifest["starts"] == 2 and len(manifest["ids"]) == 2
    falling = torch.tensor(manifest["predicted"]).diff(dim=0)
    assert (falling < 0).all()


def test_a_prior_is_learnt_and_then_used(trained: Path, project: Path) -> None:
    assert "held-out loss" in cdvae(project, "prior", str(trained), "--steps", "100")
    cdvae(project, "sample", str(trained), "-n", "2", "--out", str(project / "flow"))
    assert json.loads((project / "flow" / "manifest.json").read_text())["prior"] == "flow"
    cdvae(project, "sample", str(trained), "-n", "2", "--wanted", "O", "--property", "1.5",
          "--out", str(project / "asked"))  # fmt: skip
    asked = json.loads((project / "asked" / "manifest.json").read_text())
    assert asked["condition"]["wanted"] == [8] and asked["condition"]["prop"] == [1.5, 1.5]
    cdvae(project, "sample", str(trained), "-n", "2", "--prior", "gaussian",
          "--out", str(project / "plain"))  # fmt: skip
    cdvae(project, "optimise", str(trained), "--mode", "flow", "--maximize", "-n", "2", "--steps",
          "4", "--kept", "2", "--split", "train", "--out", str(project / "inside"))  # fmt: skip
    inside = json.loads((project / "inside" / "manifest.json").read_text())
    assert (inside["mode"], inside["steps"], len(inside["crystals"])) == ("flow", 4, 4)
    assert read(str(project / "inside")).goal == "maximise"
    ask = ("optimise", str(trained), "--mode", "guided", "--minimize", "-n", "2", "--kept", "2")
    cdvae(project, *ask, "--steps", "9", "--out", "no", code=2)  # there are none to take
    cdvae(project, *ask, "--out", str(project / "guided"))
    guided = json.loads((project / "guided" / "manifest.json").read_text())
    assert [e["name"] for e in guided["crystals"]] == [
        f"draw-{draw:02d}-start-{i:05d}" for draw in (0, 1) for i in (0, 1)
    ]
    (trained / "prior.safetensors").unlink()


def test_two_processes_train_as_one(project: Path) -> None:
    """DDP over gloo: one log, one model; --max-time and --resume are exact here, too."""
    run = project / "ddp"
    arguments = ("train", "mine.yaml", "--run", str(run), "--device", "cpu",
                 "--devices", "2", "--strategy", "ddp")  # fmt: skip
    cdvae(project, *arguments)
    said = CDVAE.load(run / "model").provenance
    assert (said["epochs"], said["steps"]) == (2, 2)  # 24 crystals on two, eight each, is one step
    assert len(list(run.glob("logs/*/metrics.csv"))) == 1
    cdvae(project, *arguments[:2], "--run", "ddp-cut", *arguments[4:], "--max-time", "00:00")
    assert CDVAE.load(project / "ddp-cut" / "model").provenance["steps"] == 1
    cdvae(project, *arguments[:2], "--run", "ddp-cut", *arguments[4:], "--resume")
    assert same_weights(run / "model", project / "ddp-cut" / "model")


@pytest.mark.slow
def test_two_machines_train_as_one(project: Path) -> None:
    """Two nodes of one process each, which find one another by MASTER_ADDR as on a cluster."""
    train = ("train", "mine.yaml", "--device", "cpu", "--strategy", "ddp")
    cdvae(project, *train, "--devices", "2", "--run", "one-machine")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    nodes = [
        subprocess.Popen(
            [str(COMMAND), *train, "--num-nodes", "2", "--run", "two-machines"],
            cwd=project,
            env=os.environ
            | {
                "CDVAE_DATA": str(project / "cache"),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                "NODE_RANK": str(rank),
            },
        )
        for rank in range(2)
    ]
    assert [node.wait(timeout=300) for node in nodes] == [0, 0]
    assert same_weights(project / "one-machine" / "model", project / "two-machines" / "model")


@pytest.mark.slow
def test_stop_and_resume_from_the_shell(project: Path) -> None:
    train = ("train", "mine.yaml", "--device", "cpu", "recipe.epochs=2")
    cdvae(project, *train, "--run", "whole")
    cdvae(project, *train, "--run", "cut", "--max-time", "00:00")
    assert CDVAE.load(project / "cut" / "model").provenance["steps"] == 1
    cdvae(project, *train, "--run", "cut", "--resume")
    assert same_weights(project / "whole" / "model", project / "cut" / "model")


# Wrong input ---

SAYS = {
    "sample: no checkpoint": "nowhere",
    "sample: a file": "notes.txt",
    "sample: schedule": "'slow'",
    "sample: too many atoms": "37",
    "sample: no atoms": "0",
    "sample: out not empty": "full",
    "sample: out in a file": "notes.txt",
    "sample: device": "toaster",
    "sample: way of several": "--tries",
    "sample: way of exchanged": "--exchange",
    "sample: no GPU": "cuda:9",
    "reconstruct: dataset": "nothing",
    "reconstruct: not built": "cdvae data build",
    "reconstruct: split": "dev",
    "reconstruct: from": "'w'",
    "train: no such": "nothing",
    "train: key": "recipe.epoch",
    "train: value": "many",
    "train: yaml": "recipe.epochs=[",
    "train: time": "90",
    "train: init": "nowhere",
    "train: resume": "nothing to resume",
    "train: not built": "cdvae data build",
    "train: device": "toaster",
    "train: devices": "devices",
    "train: strategy": "magic",
    "data info: name": "nothing",
    "data fetch: name": "nothing",
    "data fetch: empty folder": "full",
    "data build: nothing there": "nothing.csv",
    "data build: empty file": "empty.csv",
    "data build: text": "notes.txt",
    "data build: no cif column": "cif",
    "data build: broken CIF": "broken",
    "data build: no volume": "volume",
    "data build: unknown element": "Zz",
    "data build: NaN": "nan",
    "data build: 10,648 atoms": "1064",
}
USAGE = ("sample: n", "sample: out missing", "no such command")


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    checkpoint = tmp_path_factory.mktemp("checkpoint") / "model"
    small_model(0).save(checkpoint)
    folder = tmp_path_factory.mktemp("wrong")
    done = subprocess.run(
        [sys.executable, HERE / "bad_commands.py", folder, checkpoint],
        capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("command", SAYS)
def test_wrong_input_is_one_sentence_and_exit_code_two(
    answers: dict[str, dict], command: str
) -> None:
    said = answers[command]
    lines = said["stderr"].strip().splitlines()
    lines = [line for line in lines if "crystal/s]" not in line]  # progress
    assert "Traceback" not in said["stderr"], lines[-1]
    assert said["code"] == 2
    assert SAYS[command] in lines[-1] and lines[-1].startswith("cdvae: ")
    assert len(lines) == 1


@pytest.mark.parametrize("command", USAGE)
def test_wrong_usage_is_exit_code_two(answers: dict[str, dict], command: str) -> None:
    assert answers[command]["code"] == 2
    assert "Usage: cdvae" in answers[command]["stderr"]


@pytest.mark.parametrize("command", [*SAYS, *USAGE])
def test_wrong_input_leaves_nothing_behind(answers: dict[str, dict], command: str) -> None:
    assert answers[command]["new"] == [] and answers[command]["gone"] == []
