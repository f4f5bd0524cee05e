"""The `cdvae` command. It reads what a person typed, calls one function, and prints."""

from __future__ import annotations

import logging
import sys
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cdvae_core.config import MAX_SEED
from cdvae_core.data.commands import data_app
from cdvae_core.errors import CdvaeError, ConfigError, DatasetError
from cdvae_core.evaluation.commands import compare, evaluate_app

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from torch import Generator, Tensor

    from cdvae_core.baselines.protocol import Baseline
    from cdvae_core.consistency import Consistency
    from cdvae_core.crystal import Crystal
    from cdvae_core.data.cache import CachedSplit
    from cdvae_core.decode import Decoded, Folder, Given
    from cdvae_core.langevin import Schedule
    from cdvae_core.model import CDVAE
    from cdvae_core.optimise import Ascent

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
BatchSize = Annotated[
    int | None,
    typer.Option("--batch-size", min=1, help="crystals at once [128; a GPU's memory decides]"),
]
Compile = Annotated[
    bool,
    typer.Option("--compile", help="torch.compile the decoder: pays for thousands of crystals"),
]
Tries = Annotated[
    int,
    typer.Option(
        min=1, help="decode each latent so often; keep the one whose own latent is nearest"
    ),
]
Exchange = Annotated[
    bool,
    typer.Option("--exchange", help="exchange elements where its own latent comes nearer by it"),
]
Trajectory = Annotated[bool, typer.Option("--trajectory", help="keep every step as extxyz")]

_FAR = 4.0  # standard deviations from the mean: few crystals have such a property
_OF_ASCENT = {"start", "dataset", "split", "steps", "step_size", "prior_weight"}


@app.command()
def train(
    config: Annotated[str, typer.Argument(help="an experiment in the package, or a YAML file")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    run: Annotated[Path | None, typer.Option(help="folder of the run [runs/CONFIG]")] = None,
    max_time: Annotated[str | None, typer.Option(metavar="HH:MM", help="stop after it")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with this run")] = False,
    init: Annotated[Path | None, typer.Option(help="checkpoint to take the weights from")] = None,
    device: Device = "auto",
    devices: Annotated[str, typer.Option(help="how many on a machine, for Lightning")] = "1",
    num_nodes: Annotated[int, typer.Option("--num-nodes", min=1, help="machines")] = 1,
    strategy: Annotated[str, typer.Option(help="Lightning's, such as ddp")] = "auto",
    print_config: Annotated[bool, typer.Option("--print-config", help="print and exit")] = False,
) -> None:
    """Train a model; its folder is RUN/model."""
    import yaml

    from cdvae_core.config import to_dict
    from cdvae_core.experiment import BaselineExperiment, read

    experiment = read(config, overrides or [])
    if print_config:
        typer.echo(yaml.safe_dump(to_dict(experiment), sort_keys=False), nl=False)
        return
    limit = None if max_time is None else _duration(max_time)
    train_model: Callable[..., Path]
    if isinstance(experiment, BaselineExperiment):
        from cdvae_core.baselines.training import train as train_model
    else:
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
        num_nodes=num_nodes,
        strategy=strategy,
    )
    typer.echo(f"The model is in {model}")


@app.command()
def sample(
    here: typer.Context,
    checkpoint: Checkpoint,
    out: Out,
    n: Annotated[int, typer.Option("-n", min=1, help="how many crystals")] = 10,
    schedule: ScheduleName = "fast",
    seed: Seed = 0,
    prior: Annotated[
        str | None, typer.Option(help="flow, or gaussian as in the paper [flow where there is one]")
    ] = None,
    num_atoms: Annotated[
        int | None, typer.Option(help="atoms in each, instead of the predicted N")
    ] = None,
    prop: Annotated[
        str | None,
        typer.Option(
            "--property",
            metavar="VALUE|LOW,HIGH",
            help="flow: near a value, or spread over a range; a wish, no guarantee",
        ),
    ] = None,
    wanted: Annotated[str, typer.Option(help="flow: elements that should be there, as Ti,O")] = "",
    unwanted: Annotated[str, typer.Option(help="flow: elements that should not be")] = "",
    guidance: Annotated[
        float, typer.Option(min=0.0, help="flow: more than 1 exaggerates the wishes")
    ] = 1.0,
    tries: Tries = 1,
    exchange: Exchange = False,
    trajectory: Trajectory = False,
    batch_size: BatchSize = None,
    compiled: Compile = False,
    device: Device = "auto",
    scheduler: Annotated[
        str | None, typer.Option(help="Dask, tcp://HOST:PORT: its workers decode, not this machine")
    ] = None,
) -> None:
    """Generate crystals from a prior, as CIFs, an extxyz and a manifest."""
    if _is_baseline(checkpoint):
        from cdvae_core.baselines.runs import sample as sample_baseline

        system = _baseline(here, checkpoint, device, "checkpoint", "out", "n", "seed", "device")
        _keep(sample_baseline(system, checkpoint, out, n, seed), n, out)
        return
    import torch

    from cdvae_core.cluster import connect
    from cdvae_core.consistency import Consistency
    from cdvae_core.crystal import atomic_numbers_of
    from cdvae_core.decode import Given
    from cdvae_core.prior import Condition, draw

    consistency = Consistency(tries, exchange)
    if trajectory:
        consistency.check_as_decoded()  # before a folder is made
    if scheduler is not None:
        if trajectory:
            raise ConfigError("--trajectory keeps steps on this machine: leave out --scheduler")
        connect(scheduler).close()  # whether anybody answers, before a folder is made
    model, plan = _load(checkpoint, schedule, device, compiled)
    elements = (atomic_numbers_of(wanted), atomic_numbers_of(unwanted))
    wishes = Condition(None if prop is None else _range(prop), num_atoms, *elements)
    _check_atoms(num_atoms, model)
    z, name = draw(model, checkpoint, n, seed, prior, wishes, guidance)
    given = Given(None if num_atoms is None else torch.full((n,), num_atoms))
    names = [f"sample-{i:05d}" for i in range(n)]
    folder = _folder(
        out, checkpoint, plan, seed, task="sample", prior=name, condition=asdict(wishes),
        guidance=guidance, **asdict(consistency),
    )  # fmt: skip
    folder.latents(z, names)
    if scheduler is None:
        _run(model, z, names, plan, seed, given, consistency, batch_size, folder, trajectory)
    else:
        _run_on_cluster(
            model, z, names, plan, seed, given, consistency, batch_size or 128, folder, scheduler
        )


@app.command("prior")
def train_prior(
    checkpoint: Checkpoint,
    dataset: Annotated[
        str | None, typer.Option(help="whose latents it learns [the checkpoint's]")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="of training")] = 6000,
    seed: Seed = 0,
) -> None:
    """Learn where a checkpoint's latents are, for `cdvae sample --prior flow`; takes minutes."""
    from tqdm import tqdm

    from cdvae_core.data.cache import open_split
    from cdvae_core.encode import labelled
    from cdvae_core.model import CDVAE
    from cdvae_core.prior import fit, save_prior

    model = CDVAE.load(checkpoint)
    source = _dataset_of(model, dataset)
    data, held_out = (labelled(model, open_split(source, split)) for split in ("train", "val"))
    most = model.config.max_atoms
    with tqdm(total=steps, unit="step") as bar:
        for step, lowest, best in fit(data, held_out, most, steps=steps, seed=seed):  # noqa: B007
            bar.update(step - bar.n)
            bar.set_postfix(held_out=f"{lowest:.4f}")
    save_prior(best, checkpoint)
    typer.echo(
        f"held-out loss {lowest:.4f}; the prior is in {checkpoint}, and `cdvae sample` uses it"
    )


@app.command()
def reconstruct(
    here: typer.Context,
    checkpoint: Checkpoint,
    dataset: Annotated[str, typer.Option(help="name in the registry, or a path")],
    out: Out,
    split: Annotated[str, typer.Option(help="train, val or test")] = "test",
    n: Annotated[int | None, typer.Option("-n", min=1, help="a random subset of this size")] = None,
    schedule: ScheduleName = "fast",
    seed: Seed = 0,
    start: Annotated[str, typer.Option("--from", help="mu, or z drawn from q(z | M)")] = "mu",
    k: Annotated[int, typer.Option("--k", min=1, help="decodings of each crystal")] = 1,
    given: Annotated[
        str, typer.Option(help="not predicted but true: some of N,lattice,composition")
    ] = "",
    draw_n: Annotated[
        bool, typer.Option("--draw-n", help="N drawn from its distribution, not the likeliest")
    ] = False,
    tries: Tries = 1,
    exchange: Exchange = False,
    trajectory: Trajectory = False,
    batch_size: BatchSize = None,
    compiled: Compile = False,
    device: Device = "auto",
) -> None:
    """Encode crystals of a split, decode them again, and count how many match."""
    import torch

    from cdvae_core.consistency import Consistency
    from cdvae_core.data.cache import open_split
    from cdvae_core.decode import truth
    from cdvae_core.encode import encode_split

    if _is_baseline(checkpoint):
        from cdvae_core.baselines.runs import reconstruct as reconstruct_baseline

        system = _baseline(
            here, checkpoint, device, "checkpoint", "dataset", "out", "split", "n", "seed", "device"
        )
        source = open_split(dataset, split)
        chosen = source.some(n, torch.Generator().manual_seed(seed))
        folder, made = reconstruct_baseline(system, checkpoint, out, dataset, source, chosen, seed)
        found = _keep(made, len(chosen), out)
        _report(found, [source.crystal(i) for i in chosen], 1, folder)
        return

    if start not in ("mu", "z"):
        raise ConfigError(f"--from is '{start}', but must be mu or z")
    whats = [word.strip() for word in given.split(",") if word.strip()]
    if draw_n and {"N", "composition"} & set(whats):
        raise ConfigError("--draw-n draws N: then only the lattice can be --given")
    consistency = Consistency(tries, exchange)
    if trajectory:
        consistency.check_as_decoded()  # before a folder is made
    model, plan = _load(checkpoint, schedule, device, compiled)
    source = open_split(dataset, split)
    generator = torch.Generator().manual_seed(seed)
    chosen = source.some(n, generator)
    z = encode_split(model, source, chosen, generator if start == "z" else None)
    z = z.to(model.device).repeat_interleave(k, 0)
    names = [f"{split}-{i:05d}-{try_}" for i in chosen for try_ in range(k)]
    true = [source.crystal(i) for i in chosen]
    told = truth([crystal for crystal in true for _ in range(k)], whats)
    if draw_n:
        with torch.no_grad():
            sizes = model.aggregates(z).drawn_num_atoms(generator)
        told = replace(told, num_atoms=sizes)
    ids = [source.ids[i] for i in chosen]
    folder = _folder(
        out, checkpoint, plan, seed, task="reconstruct", dataset=dataset, split=split,
        start=start, k=k, given=whats, draw_n=draw_n, ids=ids, **asdict(consistency),
    )  # fmt: skip
    folder.latents(z, names)
    folder.reference(true, ids)
    found = _run(model, z, names, plan, seed, told, consistency, batch_size, folder, trajectory)
    _report(found, true, k, folder)


@app.command()
def optimise(
    here: typer.Context,
    checkpoint: Checkpoint,
    out: Out,
    minimize: Annotated[bool, typer.Option("--minimize", help="the least")] = False,
    maximize: Annotated[bool, typer.Option("--maximize", help="the most")] = False,
    target: Annotated[float | None, typer.Option(help="as near to this as can be")] = None,
    prop: Annotated[
        str | None, typer.Option("--property", help="the one that the checkpoint was trained with")
    ] = None,
    mode: Annotated[
        str,
        typer.Option(
            help="ascent (G.3); flow: ascent that does not leave the flow's latents; guided: draws "
            "from the flow with that property"
        ),
    ] = "ascent",
    n: Annotated[int, typer.Option("-n", min=1, help="how many starts")] = 100,
    start: Annotated[str, typer.Option("--from", help="mu of crystals, or the prior")] = "mu",
    dataset: Annotated[
        str | None, typer.Option(help="whose crystals to start from [the checkpoint's]")
    ] = None,
    split: Annotated[str, typer.Option(help="train, val or test")] = "test",
    steps: Annotated[
        int | None, typer.Option(min=1, help="of gradient ascent [5000, in the flow 200]")
    ] = None,
    step_size: Annotated[
        float | None, typer.Option(min=0.0, help="of Adam [0.001, in the flow 0.02]")
    ] = None,
    kept: Annotated[int, typer.Option(min=1, help="latents decoded on each way")] = 10,
    prior_weight: Annotated[float, typer.Option(min=0.0, help="holds z near the prior")] = 0.0,
    schedule: ScheduleName = "fast",
    seed: Seed = 0,
    tries: Tries = 1,
    exchange: Exchange = False,
    batch_size: BatchSize = None,
    compiled: Compile = False,
    device: Device = "auto",
) -> None:
    """Find latents of crystals with a better property, and decode them."""
    import torch

    from cdvae_core.consistency import Consistency
    from cdvae_core.decode import Given
    from cdvae_core.optimise import (
        FLOW_STEP_SIZE,
        FLOW_STEPS,
        STEP_SIZE,
        STEPS,
        Goal,
        ascend,
        guided,
    )
    from cdvae_core.prior import load_prior

    if (minimize, maximize, target is not None).count(True) != 1:
        raise ConfigError("say one of --minimize, --maximize and --target")
    if _is_baseline(checkpoint):
        from cdvae_core.baselines.runs import optimise as optimise_baseline
        from cdvae_core.data.cache import open_split

        system = _baseline(
            here, checkpoint, device, "checkpoint", "out", "minimize", "maximize", "target", "prop",
            "n", "dataset", "split", "kept", "seed", "device",
        )  # fmt: skip
        _check_property(prop, system, checkpoint)
        dataset = _dataset_of(system, dataset)
        source = open_split(dataset, split)
        chosen = _enough_of(source, n, torch.Generator().manual_seed(seed))
        goal = Goal(maximize - minimize, target or 0.0)
        made = optimise_baseline(system, checkpoint, out, dataset, source, chosen, goal, kept, seed)
        _keep(made, n * kept, out)
        return
    model, plan = _load(checkpoint, schedule, device, compiled)
    _check_property(prop, model, checkpoint)
    goal = Goal(maximize - minimize, target or 0.0, prior_weight)
    if target is not None and model.config.prop is not None:
        far = float(model.scalers.standard_prop(torch.tensor([target])))
        if abs(far) > _FAR:
            typer.echo(
                f"--target {target:g} is {abs(far):.0f} standard deviations from the mean of the "
                "training data: the prediction is a guess there, and perhaps no crystal has it",
                err=True,
            )
    consistency = Consistency(tries, exchange)
    about: dict[str, object] = {
        "task": "optimise", "mode": mode, "goal": str(goal), "property": model.config.prop,
        "starts": n, **asdict(consistency),
    }  # fmt: skip
    if mode not in ("ascent", "flow", "guided"):
        raise ConfigError(f"--mode is '{mode}', but must be ascent, flow or guided")
    prior = None if mode == "ascent" else load_prior(checkpoint, model.device)
    if mode != "ascent" and (prior is None or model.config.prop is None):
        raise ConfigError(f"--mode {mode} needs a property and a flow: `cdvae prior {checkpoint}`")
    if mode == "guided":
        assert prior is not None
        every = {str(parameter.name) for parameter in here.command.params}
        _none_ignored(here, every - _OF_ASCENT, "guided draws have no")
        folder = _folder(out, checkpoint, plan, seed, **about)
        generator = torch.Generator().manual_seed(seed)
        latents = guided(model, prior, goal, n * kept, generator)
        names = [f"draw-{draw:02d}-start-{i:05d}" for draw in range(kept) for i in range(n)]
    else:
        usual = (STEPS, STEP_SIZE) if prior is None else (FLOW_STEPS, FLOW_STEP_SIZE)
        steps = usual[0] if steps is None else steps
        step_size = usual[1] if step_size is None else step_size
        z, whence = _starts(model, start, dataset, split, n, seed)
        z = z.to(model.device)
        way = ascend(
            model, z, goal,
            flow=prior, steps=steps, step_size=step_size, kept=kept,
        )  # fmt: skip
        about |= whence | {"prior_weight": prior_weight, "steps": steps, "step_size": step_size}
        folder = _folder(out, checkpoint, plan, seed, **about)
        latents, names = _waypoints(way, steps, n)
    folder.latents(latents, names)
    with torch.no_grad():
        predicted = model.predict_property(latents).view(kept, n)
        means = f"{predicted[-1].mean():.3f} at the last latents, average of {n}"
        if mode == "guided":
            means = f"{predicted.mean():.3f}, average of {n * kept} draws"
        else:
            means = f"{model.predict_property(z).mean():.3f} at the starts, {means}"
    typer.echo(f"predicted {_with_unit(model)}: {means}; a guess, and too good far from the data")
    folder.settings["predicted"] = predicted.tolist()
    _run(model, latents, names, plan, seed, Given(), consistency, batch_size, folder,
         trajectory=False)  # fmt: skip


@app.command()
def refine(
    given: Annotated[
        Path, typer.Argument(help="what `cdvae` made, or any folder or file of crystals")
    ],
    out: Out,
    symmetry: Annotated[
        float,
        typer.Option(min=0.0, max=0.5, help="Å within which symmetry is found, made exact; 0: not"),
    ] = 0.1,
    potential: Annotated[
        str | None,
        typer.Option("--relax", help="first to a minimum of chgnet, 7net-0 or 7net-l3i5"),
    ] = None,
) -> None:
    """Relax crystals, make their near symmetry exact, and show figures before and after."""
    from tqdm import tqdm

    from cdvae_core.decode import Decoded, Folder
    from cdvae_core.evaluation.inputs import Broken, read
    from cdvae_core.metrics.stability import check_potential
    from cdvae_core.refine import names_of, refined, settings, table

    if not symmetry and potential is None:
        raise ConfigError("nothing is asked for: say --relax, or a --symmetry above 0")
    if potential is not None:
        check_potential(potential)
    crystals = read(str(given))
    if all(isinstance(item, Broken) for item in crystals.items):
        raise ConfigError(f"{given} holds no crystal that can be read")
    folder = Folder(out, settings(given, crystals, symmetry, potential))
    true = crystals.true
    if true is not None and crystals.reference is not None:
        folder.reference(true[:: crystals.tries], crystals.reference.ids)
    elif crystals.reference is not None:
        typer.echo("its reference is not whole, and is left out", err=True)
    found = []
    for name, item in zip(
        names_of(crystals.ids), tqdm(crystals.items, unit="crystal"), strict=True
    ):
        one = refined(item, symmetry, potential)
        found.append(one)
        folder.add([Decoded(name, one.last, one.problem)])
        if one.problem:
            tqdm.write(f"{name}: {one.problem}", file=sys.stderr)
    text = table(found, true)
    folder.settings["figures"] = text.splitlines()
    folder.add([])
    typer.echo(f"{sum(one.last is not None for one in found)} crystals in {out}")
    typer.echo(text)


def _waypoints(way: Iterator[Ascent], steps: int, n: int) -> tuple[Tensor, list[str]]:
    """The kept latents of an ascent, step by step, and their names."""
    import torch
    from tqdm import tqdm

    found, names = [], []
    for here in tqdm(way, total=steps, unit="step"):
        if here.kept:
            found.append(here.z)
            names += [f"step-{here.step:05d}-start-{i:05d}" for i in range(n)]
    return torch.cat(found), names


def _starts(
    model: CDVAE, start: str, dataset: str | None, split: str, n: int, seed: int
) -> tuple[Tensor, dict[str, object]]:
    """Latents to start from, and what the manifest says of them."""
    import torch

    from cdvae_core.data.cache import open_split
    from cdvae_core.encode import encode_split

    generator = torch.Generator().manual_seed(seed)
    if start == "prior":
        return torch.randn(n, model.config.latent_dim, generator=generator), {"start": "prior"}
    if start != "mu":
        raise ConfigError(f"--from is '{start}', but must be mu or prior")
    dataset = _dataset_of(model, dataset)
    source = open_split(dataset, split)
    chosen = _enough_of(source, n, generator)
    ids = [source.ids[i] for i in chosen]
    whence: dict[str, object] = {"start": "mu", "dataset": dataset, "split": split, "ids": ids}
    return encode_split(model, source, chosen), whence


def _check_property(prop: str | None, model: CDVAE | Baseline, checkpoint: Path) -> None:
    """That the property a person names is the one that the checkpoint has learnt."""
    known = model.config.prop
    if prop not in (None, known):
        has = f"with '{known}'" if known else "without a property"
        raise ConfigError(f"{checkpoint} was trained {has}, not with '{prop}'")


def _range(text: str) -> tuple[float, float]:
    """A value, or two of which the first is not the larger."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in (1, 2) or not values[0] <= values[-1]:
        raise ConfigError(
            f"--property is '{text}', but must be a number, or LOW,HIGH with LOW not above HIGH"
        )
    return values[0], values[-1]


def _with_unit(model: CDVAE) -> str:
    """The checkpoint's property, as a person reads it."""
    from cdvae_core.data.registry import dataset_spec

    prop = str(model.config.prop)
    try:
        unit = dataset_spec(_dataset_of(model, None)).properties.get(prop, "")
    except (ConfigError, DatasetError):  # its dataset is not on this machine
        unit = ""
    return f"{prop} ({unit})" if unit else prop


def _dataset_of(model: CDVAE | Baseline, given: str | None) -> str:
    """The dataset that a person names, or the one that the checkpoint was trained on."""
    known = given or model.provenance.get("dataset")
    if known is None:
        raise ConfigError("the checkpoint does not say what it was trained on: give --dataset")
    return known


def _enough_of(split: CachedSplit, n: int, generator: Generator) -> list[int]:
    """As `CachedSplit.some`, where there are so many."""
    if n > len(split):
        name = f"{split.info.dataset} {split.info.split}"
        raise ConfigError(f"{name} has {len(split)} crystals: -n {n} is too many")
    return split.some(n, generator)


def _is_baseline(checkpoint: Path) -> bool:
    from cdvae_core.checkpoint import is_baseline, read_config

    return is_baseline(read_config(checkpoint))


def _baseline(here: typer.Context, checkpoint: Path, device: str, *known: str) -> Baseline:
    """One of the systems that CDVAE is compared with.

    Raises:
        ConfigError: an option was given that is not among the known; it would be ignored.
    """
    from cdvae_core.baselines.checkpoint import load, system_of

    model = load(checkpoint, _usable(device))
    _none_ignored(here, known, f"{system_of(model)} has no")
    return model


def _none_ignored(here: typer.Context, known: Collection[str], why: str) -> None:
    """That no option was given which would be ignored."""
    for parameter in here.command.params:
        given = here.get_parameter_source(str(parameter.name))
        if given is not None and given.name == "COMMANDLINE" and parameter.name not in known:
            raise ConfigError(f"{why} {parameter.opts[0]}: leave it out")


def _keep(made: Iterator[Decoded], total: int, out: Path) -> list[Crystal | None]:
    """Take what comes, with a progress bar; what is no crystal is named on stderr."""
    from tqdm import tqdm

    found: list[Crystal | None] = []
    for item in tqdm(made, total=total, unit="crystal"):
        found.append(item.crystal)
        if item.crystal is None:
            tqdm.write(f"{item.name}: {item.problem}", file=sys.stderr)
    typer.echo(f"{sum(c is not None for c in found)} crystals in {out}")
    return found


def _report(
    found: Sequence[Crystal | None], true: Sequence[Crystal], k: int, folder: Folder
) -> None:
    from cdvae_core.metrics.reconstruction import exchanged, reconstruction

    tries = [found[i * k : (i + 1) * k] for i in range(len(true))]
    result = reconstruction(tries, true)
    wanted = [crystal for crystal in true for _ in range(k)]
    pairs = [(one, crystal) for one, crystal in zip(found, wanted, strict=True) if one]
    sizes = sum(one.num_atoms == crystal.num_atoms for one, crystal in pairs) / len(found)
    elements = sum(one.formula == crystal.formula for one, crystal in pairs) / len(found)
    judged = zip(found, wanted, result.rmse.flat, strict=True)
    missed = [(one, crystal) for one, crystal, rmse in judged if one and rmse != rmse]
    swapped = sum(exchanged(one, crystal) for one, crystal in missed) / len(found)
    folder.settings |= {
        "match_rate": result.metrics()["match_rate_ungated"],
        "rmse": result.metrics()["rms_dist_ungated"],
        "right_num_atoms": sizes,
        "right_composition": elements,
        "elements_exchanged": swapped,
    }
    folder.add([])
    of = "" if k == 1 else f" (best of {k})"
    shares = f"right N {100 * sizes:.1f} %, right composition {100 * elements:.1f} %"
    typer.echo(f"of {len(found)} decodings: {shares}")
    typer.echo(f"no match only because elements changed places: {100 * swapped:.1f} %")
    typer.echo(f"{result}{of}, StructureMatcher stol 0.5, angle_tol 10, ltol 0.3")


def _load(checkpoint: Path, schedule: str, device: str, compiled: bool) -> tuple[CDVAE, Schedule]:
    from cdvae_core.compiled import compile_decoder
    from cdvae_core.langevin import Schedule
    from cdvae_core.model import CDVAE

    model = CDVAE.load(checkpoint, _usable(device))
    if compiled:
        compile_decoder(model, cuda_graphs=True)
    return model, Schedule.named(schedule, model.config.noise)


def _usable(device: str) -> str:
    """The device, tried; "auto" is a GPU where there is one."""
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device {device} cannot be used here; try cpu") from error
    return device


def _check_atoms(num_atoms: int | None, model: CDVAE) -> None:
    """Before a folder is made for what cannot be."""
    most = model.config.max_atoms
    if num_atoms is not None and not 1 <= num_atoms <= most:
        raise ConfigError(f"num_atoms {num_atoms} is not from 1 to the checkpoint's {most}")


def _folder(out: Path, checkpoint: Path, plan: Schedule, seed: int, **more: object) -> Folder:
    from cdvae_core.decode import Folder, settings

    return Folder(out, settings(checkpoint, seed, schedule=asdict(plan), **more))


def _run(
    model: CDVAE,
    z: Tensor,
    names: list[str],
    plan: Schedule,
    seed: int,
    given: Given,
    consistency: Consistency,
    batch_size: int | None,
    folder: Folder,
    trajectory: bool,
) -> list[Crystal | None]:
    """Decode with a progress bar; bad crystals are named on stderr."""
    from tqdm import tqdm

    from cdvae_core.decode import decode, largest_batch

    found: list[Crystal | None] = []
    with tqdm(total=len(z) * consistency.tries * plan.total, unit="eval", unit_scale=True) as bar:
        for step, done in decode(
            model, z, names, plan, seed,
            given=given, consistency=consistency, batch_size=batch_size or largest_batch(model),
            folder=folder, trajectory=trajectory,
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
    given: Given,
    consistency: Consistency,
    batch_size: int,
    folder: Folder,
    scheduler: str,
) -> None:
    """Decode on a cluster; the crystals are written here, batch by batch as they come."""
    from tqdm import tqdm

    from cdvae_core.decode import decode_on_cluster

    with tqdm(total=len(z), unit="crystal") as bar:
        for done in decode_on_cluster(
            model, z, names, plan, seed, scheduler, given=given, consistency=consistency,
            batch_size=batch_size,
        ):  # fmt: skip
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
