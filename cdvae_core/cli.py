"""The `cdvae` command. It reads what a person typed, calls one function, and prints."""

from __future__ import annotations

import logging
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cdvae_core.config import MAX_SEED
from cdvae_core.data.commands import data_app
from cdvae_core.errors import CdvaeError, ConfigError
from cdvae_core.evaluation.commands import compare, evaluate_app

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from cdvae_core.crystal import Crystal
    from cdvae_core.decode import Folder
    from cdvae_core.langevin import Schedule
    from cdvae_core.model import CDVAE

app = typer.Typer(
    help="Crystal Diffusion Variational Autoencoder.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data_app, name="data")
app.add_typer(evaluate_app, name="evaluate")
app.command()(compare)

Checkpoint = Annotated[Path, typer.Argument(help="folder of a trained model")]
Out = Annotated[Path, typer.Option("--out", help="empty or new folder for the crystals")]
ScheduleName = Annotated[str, typer.Option("--schedule", help="paper or fast")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=MAX_SEED, help="of every random draw")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, ...")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="crystals at once")]
Trajectory = Annotated[bool, typer.Option("--trajectory", help="keep every step as extxyz")]


@app.command()
def train(
    config: Annotated[str, typer.Argument(help="an experiment in the package, or a YAML file")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    run: Annotated[Path | None, typer.Option(help="folder of the run [runs/CONFIG]")] = None,
    max_time: Annotated[str | None, typer.Option(metavar="HH:MM", help="stop after it")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with this run")] = False,
    init: Annotated[Path | None, typer.Option(help="checkpoint to take the weights from")] = None,
    device: Device = "auto",
    devices: Annotated[str, typer.Option(help="how many, for Lightning")] = "1",
    strategy: Annotated[str, typer.Option(help="Lightning's, such as ddp")] = "auto",
    print_config: Annotated[bool, typer.Option("--print-config", help="print and exit")] = False,
) -> None:
    """Train a model; its folder is RUN/model."""
    import yaml

    from cdvae_core.config import to_dict
    from cdvae_core.experiment import read

    experiment = read(config, overrides or [])
    if print_config:
        typer.echo(yaml.safe_dump(to_dict(experiment), sort_keys=False), nl=False)
        return
    limit = None if max_time is None else _duration(max_time)
    from cdvae_core.train import train as train_model

    accelerator, _, place = device.partition(":")  # Lightning's words for cuda:1
    count = int(devices) if devices.isdigit() else devices
    # what Lightning says of itself and its maker's services is no news of this run
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    model = train_model(
        experiment,
        run or Path("runs") / Path(config).stem,
        max_time=limit,
        resume=resume,
        init=init,
        accelerator=accelerator,
        devices=[int(place)] if place.isdigit() else count,
        strategy=strategy,
    )
    typer.echo(f"The averaged model is in {model}")


@app.command()
def sample(
    checkpoint: Checkpoint,
    out: Out,
    n: Annotated[int, typer.Option("-n", min=1, help="how many crystals")] = 10,
    schedule: ScheduleName = "fast",
    seed: Seed = 0,
    num_atoms: Annotated[
        int | None, typer.Option(help="atoms in each, instead of the predicted N")
    ] = None,
    trajectory: Trajectory = False,
    batch_size: BatchSize = 128,
    device: Device = "auto",
    scheduler: Annotated[
        str | None, typer.Option(help="Dask, tcp://HOST:PORT: its workers decode, not this machine")
    ] = None,
) -> None:
    """Generate crystals from the prior N(0, 1), as CIFs, an extxyz and a manifest."""
    import torch

    from cdvae_core.cluster import connect

    if scheduler is not None:
        if trajectory:
            raise ConfigError("--trajectory keeps steps on this machine: leave out --scheduler")
        connect(scheduler).close()  # whether anybody answers, before a folder is made
    model, plan = _load(checkpoint, schedule, device)
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, model.config.latent_dim, generator=generator).to(model.device)
    fixed = None if num_atoms is None else torch.full((n,), num_atoms, device=model.device)
    names = [f"sample-{i:05d}" for i in range(n)]
    _check_atoms(num_atoms, model)
    folder = _folder(out, checkpoint, plan, seed, task="sample", num_atoms=num_atoms)
    folder.latents(z, names)
    if scheduler is None:
        _run(model, z, names, plan, seed, fixed, batch_size, folder, trajectory)
    else:
        _run_on_cluster(model, z, names, plan, seed, fixed, batch_size, folder, scheduler)


@app.command()
def reconstruct(
    checkpoint: Checkpoint,
    dataset: Annotated[str, typer.Option(help="name in the registry, or a path")],
    out: Out,
    split: Annotated[str, typer.Option(help="train, val or test")] = "test",
    n: Annotated[int | None, typer.Option("-n", min=1, help="a random subset of this size")] = None,
    schedule: ScheduleName = "fast",
    seed: Seed = 0,
    start: Annotated[str, typer.Option("--from", help="mu, or z drawn from q(z | M)")] = "mu",
    k: Annotated[int, typer.Option("--k", min=1, help="decodings of each crystal")] = 1,
    trajectory: Trajectory = False,
    batch_size: BatchSize = 128,
    device: Device = "auto",
) -> None:
    """Encode crystals of a split, decode them again, and count how many match."""
    import torch

    from cdvae_core.data.cache import open_split
    from cdvae_core.encode import encode_split

    if start not in ("mu", "z"):
        raise ConfigError(f"--from is '{start}', but must be mu or z")
    model, plan = _load(checkpoint, schedule, device)
    source = open_split(dataset, split)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(source), generator=generator)[:n].sort().values.tolist()
    z = encode_split(model, source, chosen, generator if start == "z" else None)
    z = z.to(model.device).repeat_interleave(k, 0)
    names = [f"{split}-{i:05d}-{try_}" for i in chosen for try_ in range(k)]
    true = [source.crystal(i) for i in chosen]
    ids = [source.ids[i] for i in chosen]
    folder = _folder(
        out, checkpoint, plan, seed, task="reconstruct", dataset=dataset, split=split,
        start=start, k=k, ids=ids,
    )  # fmt: skip
    folder.latents(z, names)
    folder.reference(true, ids)
    found = _run(model, z, names, plan, seed, None, batch_size, folder, trajectory)
    _report(found, true, k, folder)


def _report(
    found: Sequence[Crystal | None], true: Sequence[Crystal], k: int, folder: Folder
) -> None:
    from cdvae_core.metrics.reconstruction import reconstruction

    tries = [found[i * k : (i + 1) * k] for i in range(len(true))]
    result = reconstruction(tries, true)
    wanted = [crystal for crystal in true for _ in range(k)]
    pairs = [(one, crystal) for one, crystal in zip(found, wanted, strict=True) if one]
    sizes = sum(one.num_atoms == crystal.num_atoms for one, crystal in pairs) / len(found)
    elements = sum(one.formula == crystal.formula for one, crystal in pairs) / len(found)
    folder.settings |= {
        "match_rate": result.metrics()["match_rate_ungated"],
        "rmse": result.metrics()["rms_dist_ungated"],
        "right_num_atoms": sizes,
        "right_composition": elements,
    }
    folder.add([])
    of = "" if k == 1 else f" (best of {k})"
    shares = f"right N {100 * sizes:.1f} %, right composition {100 * elements:.1f} %"
    typer.echo(f"of {len(found)} decodings: {shares}")
    typer.echo(f"{result}{of}, StructureMatcher stol 0.5, angle_tol 10, ltol 0.3")


def _load(checkpoint: Path, schedule: str, device: str) -> tuple[CDVAE, Schedule]:
    import torch

    from cdvae_core.langevin import Schedule
    from cdvae_core.model import CDVAE

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device {device} cannot be used here; try cpu") from error
    model = CDVAE.load(checkpoint, device)
    return model, Schedule.named(schedule, model.config.noise)


def _check_atoms(num_atoms: int | None, model: CDVAE) -> None:
    """Before a folder is made for what cannot be."""
    most = model.config.max_atoms
    if num_atoms is not None and not 1 <= num_atoms <= most:
        raise ConfigError(f"num_atoms {num_atoms} is not from 1 to the checkpoint's {most}")


def _folder(out: Path, checkpoint: Path, plan: Schedule, seed: int, **more: object) -> Folder:
    from cdvae_core.decode import Folder, settings

    return Folder(out, settings(checkpoint, plan, seed, **more))


def _run(
    model: CDVAE,
    z: Tensor,
    names: list[str],
    plan: Schedule,
    seed: int,
    num_atoms: Tensor | None,
    batch_size: int,
    folder: Folder,
    trajectory: bool,
) -> list[Crystal | None]:
    """Decode with a progress bar; bad crystals are named on stderr."""
    from tqdm import tqdm

    from cdvae_core.decode import decode

    found: list[Crystal | None] = []
    with tqdm(total=len(z) * plan.total, unit="eval", unit_scale=True) as bar:
        for step, done in decode(
            model, z, names, plan, seed,
            num_atoms=num_atoms, batch_size=batch_size, folder=folder, trajectory=trajectory,
        ):  # fmt: skip
            bar.update(step.crystals.num_crystals)
            for item in done:
                found.append(item.crystal)
                if item.crystal is None:
                    tqdm.write(f"{item.name}: {item.problem}", file=sys.stderr)
    typer.echo(f"{sum(c is not None for c in found)} crystals in {folder.path}")
    return found


def _run_on_cluster(
    model: CDVAE,
    z: Tensor,
    names: list[str],
    plan: Schedule,
    seed: int,
    num_atoms: Tensor | None,
    batch_size: int,
    folder: Folder,
    scheduler: str,
) -> None:
    """Decode on a cluster; the crystals are written here, batch by batch as they come."""
    from tqdm import tqdm

    from cdvae_core.decode import decode_on_cluster

    with tqdm(total=len(z), unit="crystal") as bar:
        for done in decode_on_cluster(
            model, z, names, plan, seed, scheduler, num_atoms=num_atoms, batch_size=batch_size
        ):
            folder.add(done)
            bar.update(len(done))
    good = sum("cif" in entry for entry in folder.entries)
    typer.echo(f"{good} crystals in {folder.path}")


def _duration(text: str) -> timedelta:
    hours, colon, minutes = text.partition(":")
    if not (colon and hours.isdigit() and minutes.isdigit()):
        raise ConfigError(f"--max-time is '{text}', but must be HH:MM, such as 01:30")
    return timedelta(hours=int(hours), minutes=int(minutes))


def main() -> None:
    """The command's entry: what a person did wrong is one sentence and exit code 2."""
    try:
        app()
    except CdvaeError as error:
        typer.echo(f"cdvae: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
