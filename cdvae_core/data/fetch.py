"""Fetch a benchmark: download the official CSV files, or take them from a folder.

    cdvae data fetch perov_5 [--from DIR]

A download goes to `FILE.part` and resumes there; only a file whose checksum is right gets its name.
`source.json`, written last, says that the set is complete and what is to be noted about it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import numpy as np
from tqdm import tqdm

from cdvae_core.data.custom import Entry, read_table
from cdvae_core.data.registry import OFFICIAL_URL, SPLITS, DatasetSpec, cache_root
from cdvae_core.errors import DatasetError
from cdvae_core.files import write_atomically

_BLOCK = 1 << 18
_VAL_SHARE_FOR_TRAIN = 0.9
_SEED = 0


@dataclass(frozen=True)
class RawSource:
    """The fetched files of a dataset.

    Attributes:
        folder: where they are.
        files: name of each split's file.
        notes: what is incomplete, by split.
    """

    folder: Path
    files: dict[str, str]
    notes: dict[str, list[str]]


def raw_folder(name: str, root: Path | None = None) -> Path:
    """Where the fetched files of a dataset lie."""
    return cache_root(root) / "raw" / name


def git_blob_id(path: Path) -> str:
    """SHA-1 of `blob SIZE`, a zero byte and the content, as git names a file."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def fetch(
    spec: DatasetSpec,
    *,
    from_folder: Path | None = None,
    root: Path | None = None,
    url: str = OFFICIAL_URL,
    progress: bool = True,
) -> RawSource:
    """Put the files of a benchmark into the cache.

    Args:
        spec: the dataset.
        from_folder: take the files from there instead of the network: official CSV files, or
            Parquet files with the same columns.
        root: the cache directory.
        url: folder of the official files.
        progress: show a bar on stderr.

    Raises:
        DatasetError: nothing to fetch, no connection, a wrong checksum or number of rows.
    """
    if not spec.files:
        raise DatasetError(f"{spec.name} needs no fetching: it ships with the package or is yours")
    folder = raw_folder(spec.name, root)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatasetError(
            f"{folder} cannot be made ({error.strerror}): set CDVAE_DATA to a folder of yours"
        ) from error
    if from_folder is None:
        return _download_all(spec, folder, url, progress)
    return _take(spec, from_folder, folder)


def fetched(spec: DatasetSpec, root: Path | None = None) -> RawSource | None:
    """What `fetch` left in the cache, or None."""
    folder = raw_folder(spec.name, root)
    try:
        record = json.loads((folder / "source.json").read_text())
        return RawSource(folder, record["files"], record["notes"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError) as error:
        raise DatasetError(
            f"{folder / 'source.json'} is damaged: run `cdvae data fetch {spec.name}` again"
        ) from error


def read_raw(spec: DatasetSpec, source: RawSource, split: str) -> list[Entry]:
    """The entries of a fetched split, in the order of the file.

    Raises:
        DatasetError: the file is gone or damaged.
    """
    path = source.folder / source.files[split]
    if not path.exists():
        raise DatasetError(f"{path} is gone: run `cdvae data fetch {spec.name}` again")
    return read_table(path, spec.properties)


def _finish(folder: Path, files: dict[str, str], notes: dict[str, list[str]]) -> RawSource:
    record = json.dumps({"files": files, "notes": notes}, indent=1)
    write_atomically(folder / "source.json", record.encode())
    return RawSource(folder, files, notes)


def _download_all(spec: DatasetSpec, folder: Path, url: str, progress: bool) -> RawSource:
    files = {split: f"{split}.csv" for split in SPLITS}
    for split, name in files.items():
        path = folder / name
        if not path.exists() or git_blob_id(path) != spec.files[split].blob:
            _download(f"{url}/{spec.name}/{name}", path, spec.files[split].blob, progress)
        _check_rows(spec, split, path)
    return _finish(folder, files, {})


def _download(address: str, path: Path, blob: str, progress: bool) -> None:
    """Download to `PATH.part`, from where an earlier try stopped, check, and rename."""
    part = path.with_name(path.name + ".part")
    try:
        _receive(address, part, progress)
    except HTTPError as error:
        if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:  # then the part is whole
            raise DatasetError(f"{address} answers {error.code} {error.reason}") from error
    except (URLError, HTTPException, OSError) as error:
        raise DatasetError(
            f"{address} cannot be downloaded ({error}): run the command again to resume, or use "
            "--from DIR with the files in a folder"
        ) from error
    found = git_blob_id(part)
    if found != blob:
        part.unlink()
        raise DatasetError(
            f"{address} has the checksum {found}, not {blob}: the download was deleted, try again"
        )
    part.replace(path)


def _receive(address: str, part: Path, progress: bool) -> None:
    """Append to `part` what is missing, or write it anew where the server knows no ranges."""
    have = part.stat().st_size if part.exists() else 0
    request = Request(address, headers={"Range": f"bytes={have}-"} if have else {})
    with urlopen(request, timeout=60) as reply:
        if reply.status != HTTPStatus.PARTIAL_CONTENT:
            have = 0
        length = int(reply.headers.get("Content-Length") or 0)
        with (
            part.open("ab" if have else "wb") as file,
            tqdm(
                total=have + length or None, initial=have, unit="B", unit_scale=True,
                desc=part.stem, disable=not progress,
            ) as bar,
        ):  # fmt: skip
            while block := reply.read(_BLOCK):
                file.write(block)
                bar.update(len(block))
    if part.stat().st_size < have + length:
        raise OSError(f"the connection ended after {part.stat().st_size} of {have + length} bytes")


def _check_rows(spec: DatasetSpec, split: str, path: Path) -> None:
    rows, wanted = len(read_table(path, spec.properties)), spec.files[split].rows
    if rows != wanted:
        raise DatasetError(f"{path} has {rows} rows, the official {split} has {wanted}")


def _take(spec: DatasetSpec, given: Path, folder: Path) -> RawSource:
    """From a folder: `DIR` or `DIR/NAME` with CSV or Parquet files."""
    inside = given / spec.name if (given / spec.name).is_dir() else given
    (folder / "source.json").unlink(missing_ok=True)
    if all((inside / f"{split}.csv").exists() for split in SPLITS):
        return _take_csv(spec, inside, folder)
    if (inside / "train_partial.parquet").exists():
        return _take_partial(spec, inside, folder)
    if all((inside / f"{split}.parquet").exists() for split in SPLITS):
        return _take_parquet(spec, inside, folder)
    raise DatasetError(
        f"{inside} has neither train.csv, val.csv and test.csv nor these as .parquet"
    )


def _take_csv(spec: DatasetSpec, inside: Path, folder: Path) -> RawSource:
    files = {split: f"{split}.csv" for split in SPLITS}
    for split, name in files.items():
        found, wanted = git_blob_id(inside / name), spec.files[split].blob
        if found != wanted:
            raise DatasetError(
                f"{inside / name} is not the official file (checksum {found}, not {wanted}): use "
                "`cdvae data build PATH` for a dataset of your own"
            )
        _check_rows(spec, split, inside / name)
        _copy(inside / name, folder / name)
    return _finish(folder, files, {})


def _take_parquet(spec: DatasetSpec, inside: Path, folder: Path) -> RawSource:
    files = {split: f"{split}.parquet" for split in SPLITS}
    notes = {}
    for split, name in files.items():
        rows, wanted = len(read_table(inside / name, spec.properties)), spec.files[split].rows
        if rows > wanted:
            raise DatasetError(f"{inside / name} has {rows} rows, the official one {wanted}")
        if rows < wanted:
            notes[split] = [f"incomplete: {rows:,} of the official {wanted:,} rows of {split}"]
        _copy(inside / name, folder / name)
    return _finish(folder, files, notes)


def _take_partial(spec: DatasetSpec, inside: Path, folder: Path) -> RawSource:
    """Where most of train is missing: train on what there is and on nine tenths of val."""
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        partial, val = (
            parquet.read_table(inside / f"{n}.parquet") for n in ("train_partial", "val")
        )
    except (pyarrow.ArrowException, OSError) as error:
        raise DatasetError(f"{inside} has a damaged file: {error}") from error
    order = np.random.default_rng(_SEED).permutation(len(val))
    moved = round(_VAL_SHARE_FOR_TRAIN * len(val))
    train = pyarrow.concat_tables([partial, val.take(np.sort(order[:moved]))])
    for name, table in (("train", train), ("val", val.take(np.sort(order[moved:])))):
        temporary = folder / f"{name}.parquet.tmp"
        parquet.write_table(table, temporary, compression="zstd")
        temporary.replace(folder / f"{name}.parquet")
    _copy(inside / "test.parquet", folder / "test.parquet")
    wanted = spec.files["train"].rows
    note = (
        f"incomplete: {len(partial):,} of the official {wanted:,} rows of train, and {moved:,} of "
        f"the official {len(val):,} rows of val moved to train (seed {_SEED})"
    )
    files = {split: f"{split}.parquet" for split in SPLITS}
    return _finish(folder, files, {"train": [note], "val": [note]})


def _copy(source: Path, destination: Path) -> None:
    if source.resolve() == destination.resolve():
        return
    temporary = destination.with_name(destination.name + ".tmp")
    shutil.copyfile(source, temporary)
    temporary.replace(destination)
