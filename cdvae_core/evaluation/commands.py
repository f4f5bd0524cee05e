"""`cdvae evaluate` and `cdvae compare`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cdvae_core.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from cdvae_core.evaluation.inputs import Crystals
    from cdvae_core.evaluation.scoring import Judge, Scored
    from cdvae_core.evaluation.work import Crew, Store

evaluate_app = typer.Typer(
    help="Score crystals, whoever made them: reconstruction, generation, optimisation.",
    no_args_is_help=True,
)

Input = Annotated[
    str, typer.Argument(help="folder or zip of CIFs, extxyz, CSV with `cif`, ASE db, eval_*.pt")
]
Reference = Annotated[
    str, typer.Option("--reference", help="DATASET:SPLIT, or any input of the kinds above")
]
OwnReference = Annotated[
    str | None, typer.Option("--reference", help="if the input does not bring its own")
]
CutoffsName = Annotated[
    str | None, typer.Option("--cutoffs", help="perov_5, carbon_24 or mp_20 [the reference's]")
]
Out = Annotated[Path | None, typer.Option("--out", help="folder of the report [INPUT-report]")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="of every random draw")]
Jobs = Annotated[int, typer.Option("--jobs", min=1, help="processes")]
Timeout = Annotated[float, typer.Option("--timeout", min=0.1, help="seconds for one crystal")]
Scheduler = Annotated[str | None, typer.Option("--scheduler", help="Dask, tcp://HOST:PORT")]

LIKE = {"perov_like": "perov_5", "mp_like": "mp_20"}  # whose cut-offs suit the embedded sets


@evaluate_app.command()
def reconstruction(
    given: Input,
    reference: OwnReference = None,
    cutoffs: CutoffsName = None,
    out: Out = None,
    seed: Seed = 0,
    jobs: Jobs = 2,
    timeout: Timeout = 60.0,
    scheduler: Scheduler = None,
) -> None:
    """Match rate and RMSE, pair by pair in order."""
    from cdvae_core.evaluation import scoring
    from cdvae_core.evaluation.inputs import read
    from cdvae_core.evaluation.noise_floor import paired, training_of

    since = time.monotonic()
    crystals = read(given)
    true = read(reference) if reference else crystals.reference
    if true is None:
        raise ConfigError(f"{given} brings no reference; add --reference")
    name = reference if reference else f"{crystals.dataset or ''}:"
    judge = _judge(_crew(jobs, timeout, scheduler), cutoffs, name, seed)
    folder = _folder(out, given)
    stores = _stores(folder, true)
    scored = scoring.reconstruction(judge, crystals, true, stores)
    training = training_of(true)
    floor = None
    if training is not None:
        own = paired(training, len(true), seed)
        floor = scoring.reconstruction(judge, own, true, (_store_of(training), stores[1]))
    _finish("reconstruction", crystals, true, judge, scored, floor, [], since, folder)


@evaluate_app.command()
def generation(
    given: Input,
    reference: Reference,
    cutoffs: CutoffsName = None,
    of: Annotated[
        int | None,
        typer.Option("--of", min=1, help="crystals drawn from the reference [all]"),
    ] = None,
    out: Out = None,
    seed: Seed = 0,
    jobs: Jobs = 2,
    timeout: Timeout = 60.0,
    scheduler: Scheduler = None,
) -> None:
    """Validity, coverage, distributions, symmetry; unique and novel crystals."""
    from cdvae_core.evaluation import scoring
    from cdvae_core.evaluation.inputs import read
    from cdvae_core.evaluation.noise_floor import drawn, training_of

    since = time.monotonic()
    crystals, every = read(given), read(reference)
    true = every if of is None else drawn(every, of, seed)
    judge = _judge(_crew(jobs, timeout, scheduler), cutoffs, reference, seed)
    folder = _folder(out, given)
    stores = _stores(folder, true)
    training = training_of(true)
    scored = scoring.generation(judge, crystals, true, stores, training)
    floor = None
    if training is not None:
        own = drawn(training, len(crystals), seed)
        floor = scoring.generation(judge, own, true, (_store_of(training), stores[1]))
    some = f"The reference is {len(true):,} of the {len(every):,} crystals of {every.name}, drawn."
    notes = [some] if len(true) < len(every) else []
    _finish("generation", crystals, true, judge, scored, floor, notes, since, folder)


@evaluate_app.command()
def optimisation(
    given: Input,
    reference: Reference,
    cutoffs: CutoffsName = None,
    starts: Annotated[
        int | None, typer.Option(min=1, help="crystals of one saved step [the input's, or 100]")
    ] = None,
    out: Out = None,
    seed: Seed = 0,
    jobs: Jobs = 2,
    timeout: Timeout = 60.0,
    scheduler: Scheduler = None,
) -> None:
    """Success rates; crystals step by step, all starts of a step one after the other."""
    from cdvae_core.evaluation import scoring
    from cdvae_core.evaluation.inputs import read
    from cdvae_core.evaluation.noise_floor import drawn, training_of

    since = time.monotonic()
    crystals, true = read(given), read(reference)
    judge = _judge(_crew(jobs, timeout, scheduler), cutoffs, reference, seed)
    starts = starts or crystals.starts or 100
    if len(crystals) % starts:  # before an hour is spent on measuring them
        raise ConfigError(
            f"{crystals.name} has {len(crystals)} crystals, no whole number of steps of {starts} "
            "starts: give the right --starts"
        )
    folder = _folder(out, given)
    training = training_of(true)
    thresholds, whence = _thresholds(judge, true, training)
    store = _store(folder / "parts")
    scored = scoring.optimised(judge, crystals, starts, thresholds, store)
    floor = None
    if training is not None:
        own = drawn(training, len(crystals) // starts * starts, seed)
        if len(own) == len(crystals):
            floor = scoring.optimised(judge, own, starts, thresholds, _store_of(training))
    notes = [whence]
    if crystals.goal not in (None, "minimise"):
        notes.append(f"These crystals were made to {crystals.goal}; success is the lowest here.")
    _finish("optimisation", crystals, true, judge, scored, floor, notes, since, folder)


@evaluate_app.command()
def stability(
    given: Input,
    reference: Reference,
    potential: Annotated[str, typer.Option(help="chgnet, 7net-0 or 7net-l3i5")] = "chgnet",
    n: Annotated[int, typer.Option("-n", min=1, help="crystals drawn from the input")] = 100,
    cutoffs: CutoffsName = None,
    out: Out = None,
    seed: Seed = 0,
    jobs: Jobs = 2,
    timeout: Timeout = 300.0,
    scheduler: Scheduler = None,
) -> None:
    """Relax by a machine-learned potential: energy above the reference's hull, S.U.N."""
    from cdvae_core.evaluation import scoring
    from cdvae_core.evaluation.inputs import read
    from cdvae_core.evaluation.noise_floor import drawn, training_of
    from cdvae_core.metrics.stability import check_potential

    since = time.monotonic()
    check_potential(potential)
    crystals, true = drawn(read(given), n, seed), read(reference)
    judge = _judge(_crew(jobs, timeout, scheduler), cutoffs, reference, seed)
    folder = _folder(out, given)
    stores = _stores(folder, true)
    training = training_of(true)
    scored = scoring.stability(judge, crystals, true, stores, potential, training)
    floor = None
    if training is not None:
        own = (_store_of(training), stores[1])
        floor = scoring.stability(judge, drawn(training, n, seed), true, own, potential)
    _finish("stability", crystals, true, judge, scored, floor, [], since, folder)


def compare(
    reports: Annotated[list[Path], typer.Argument(help="report.json files, or their folders")],
    paper: Annotated[bool, typer.Option("--paper", help="the published rows, too")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="folder for compare.html")] = None,
) -> None:
    """Models side by side."""
    from cdvae_core.evaluation.compare import page, published_for, table
    from cdvae_core.evaluation.report import read
    from cdvae_core.files import write_atomically

    made = [read(path) for path in reports]
    names = [report.name for report in made]
    heads = [
        name if names.count(name) == 1 else str(p) for name, p in zip(names, reports, strict=True)
    ]
    columns = list(zip(heads, made, strict=True))
    published = published_for([report for _, report in columns]) if paper else []
    typer.echo(table(columns, published))
    if out is not None:
        write_atomically(out / "compare.html", page(columns, published).encode())
        typer.echo(f"The same as a page: {out / 'compare.html'}")


def _crew(jobs: int, timeout: float, scheduler: str | None) -> Crew:
    from cdvae_core.cluster import connect
    from cdvae_core.evaluation.work import Crew

    if scheduler is not None:
        connect(scheduler).close()  # whether anybody answers, before any work is done
    return Crew(jobs, timeout, scheduler)


def _judge(crew: Crew, cutoffs: str | None, reference: str | None, seed: int) -> Judge:
    from cdvae_core.evaluation.scoring import Judge
    from cdvae_core.metrics.coverage import CUTOFFS
    from cdvae_core.metrics.predictor import known

    dataset = (reference or "").rpartition(":")[0]
    name = cutoffs or (dataset if dataset in CUTOFFS else LIKE.get(dataset))
    if name is None:
        raise ConfigError(
            f"--cutoffs is needed, since the reference is no split of a dataset that has its own: "
            f"one of {', '.join(CUTOFFS)}"
        )
    return Judge(crew, name, seed, dataset if dataset in known() else name)


def _thresholds(
    judge: Judge, reference: Crystals, training: Crystals | None
) -> tuple[tuple[float, ...], str]:
    """The published percentiles, or those of the same network over another training split."""
    from cdvae_core.metrics.optimisation import THRESHOLDS, thresholds_of

    if reference.dataset in THRESHOLDS:
        return THRESHOLDS[reference.dataset], "Thresholds are the published percentiles."
    if training is None:
        raise ConfigError(
            f"{reference.name} has no training split to take percentiles of: give DATASET:SPLIT"
        )
    energies: np.ndarray = judge.energies(training, range(len(training)), _store_of(training))
    return (
        thresholds_of(energies),
        f"Thresholds are percentiles of the network's energies of {training.name}.",
    )


def _folder(out: Path | None, given: str) -> Path:
    if out is not None:
        return out
    path = Path(given)
    if path.exists():
        path = path.resolve()  # `.` has no name of its own
        return path.with_name(f"{path.stem if path.is_file() else path.name}-report")
    return Path(f"{given.replace(':', '-')}-report")


def _store(folder: Path) -> Store:
    from cdvae_core.evaluation.work import Store

    return Store(folder)


def _store_of(split: Crystals) -> Store:
    """Where the answers about a dataset's split are kept, for all evaluations."""
    from cdvae_core.data.registry import cache_root

    return _store(cache_root() / "evaluation" / split.name.replace(":", "-"))


def _stores(folder: Path, reference: Crystals) -> tuple[Store, Store]:
    own = _store(folder / "parts")
    return own, _store_of(reference) if reference.fingerprint else own


def _finish(
    task: str,
    given: Crystals,
    reference: Crystals,
    judge: Judge,
    scored: Scored,
    floor: Scored | None,
    notes: list[str],
    since: float,
    folder: Path,
) -> None:
    from cdvae_core.evaluation import report

    if floor is None:
        notes = [*notes, "No noise floor: the reference is no split of a dataset."]
    made = report.make(task, given, reference, judge, scored, floor, notes, since)
    report.write(made, scored, floor, folder)
    typer.echo(made.text())
    typer.echo(f"The report is in {folder}")
