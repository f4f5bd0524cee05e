"""`cdvae data`: list, fetch, info and build."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

data_app = typer.Typer(help="Datasets: list, fetch, build and describe them.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="A dataset, see `cdvae data list`.")]


@data_app.command("list")
def list_datasets() -> None:
    """The datasets, and which of them are ready for training."""
    from cdvae_core.data.cache import find_split
    from cdvae_core.data.fetch import fetched
    from cdvae_core.data.registry import DATASETS, SPLITS, cache_root, user_datasets

    typer.echo(f"cache: {cache_root()}")
    for name, spec in (DATASETS | user_datasets()).items():
        ready = [split for split in SPLITS if find_split(name, split)]
        if len(ready) == len(SPLITS):
            state = "ready"
        elif ready:
            state = f"ready: {', '.join(ready)}"
        elif spec.files:
            state = "fetched, not built" if fetched(spec) else "not fetched"
        else:
            state = "not built"
        typer.echo(f"{name:12} {state:20} {spec.title}")


@data_app.command("fetch")
def fetch_dataset(
    name: Name,
    from_folder: Annotated[
        Path | None,
        typer.Option("--from", help="Take the official CSV or Parquet files from a folder."),
    ] = None,
) -> None:
    """Download a benchmark's official files into the cache, or take them from a folder."""
    from cdvae_core.data.fetch import fetch
    from cdvae_core.data.registry import dataset_spec

    source = fetch(dataset_spec(name), from_folder=from_folder)
    for split, notes in source.notes.items():
        for note in notes:
            typer.echo(f"note ({split}): {note}")
    typer.echo(f"{name} is in {source.folder}; next: cdvae data build {name}")


@data_app.command("info")
def info_dataset(name: Name) -> None:
    """Sizes, properties, notes and fingerprints of a dataset."""
    from cdvae_core.data.describe import describe

    typer.echo(describe(name))


@data_app.command("build")
def build_dataset(
    name: Annotated[str, typer.Argument(help="A dataset, or a file or folder of your own.")],
    limit: Annotated[int | None, typer.Option(help="At most so many crystals in a split.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the result instead of the cache.")
    ] = None,
    seed: Annotated[int, typer.Option(help="For the random draws of perov_like, mp_like.")] = 0,
) -> None:
    """Preprocess a dataset for training; perov_like and mp_like are made anew from nothing."""
    from cdvae_core.data.builder import build

    for info in build(name, limit=limit, workers=workers, out=out, seed=seed):
        for note in info.notes:
            typer.echo(f"note ({info.split}): {note}")
        for skipped in info.skipped:
            typer.echo(f"skipped {skipped.id}: {skipped.reason}")
        typer.echo(
            f"{info.dataset} {info.split}: {len(info.skipped)} skipped, "
            f"fingerprint {info.fingerprint[:16]}"
        )
