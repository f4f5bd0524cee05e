"""Downloads that resume and are checked, and files taken from a folder."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from toys import cif_text

from cdvae_core.data import fetch as fetching
from cdvae_core.data.fetch import fetch, fetched, git_blob_id, read_raw
from cdvae_core.data.registry import DATASETS, SPLITS, DatasetSpec, OfficialFile
from cdvae_core.errors import DatasetError


def csv_content(split: str, rows: int) -> bytes:
    lines = [",material_id,cif,energy"]
    lines += [f'{i},{split}-{i},"{cif_text()}",{i / 7!r}' for i in range(rows)]
    return "\n".join(lines).encode()


FILES = {split: csv_content(split, 3 + i) for i, split in enumerate(SPLITS)}


def blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@pytest.fixture
def spec() -> DatasetSpec:
    files = {s: OfficialFile(blob(content), 3 + i) for i, (s, content) in enumerate(FILES.items())}
    return DatasetSpec("toy", "toys", {"energy": "eV"}, "energy", 2, "us", files=files)


class Server(BaseHTTPRequestHandler):
    """Serves FILES with ranges; can cut the connection or change the content."""

    asked: list[tuple[str, str | None]]
    cut_at: int | None = None
    spoil = False

    def do_GET(self) -> None:
        split = Path(self.path.split("?")[0]).stem
        wanted = self.headers.get("Range")
        self.asked.append((self.path, wanted))
        if split not in FILES:
            self.send_error(404)
            return
        content = FILES[split] if not self.spoil else FILES[split].replace(b"Cs", b"Rb")
        first = int(re.match(r"bytes=(\d+)-", wanted).group(1)) if wanted else 0
        if wanted and first >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        end = len(content) if self.cut_at is None else self.cut_at
        self.wfile.write(content[first:end])

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[type[Server]]:
    handler = type("Handler", (Server,), {"asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        handler.url = f"http://127.0.0.1:{listening.server_port}/data"
        threading.Thread(target=functools.partial(listening.serve_forever, 0.01)).start()
        yield handler
        listening.shutdown()


def test_blob_ids_are_those_of_git(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"hello\n")
    assert git_blob_id(tmp_path / "x") == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_download(spec: DatasetSpec, server: type[Server], tmp_path: Path) -> None:
    assert fetched(spec, tmp_path) is None
    source = fetch(spec, root=tmp_path, url=server.url, progress=False)
    assert [path for path, _ in server.asked] == [f"/data/toy/{s}.csv" for s in SPLITS]
    assert fetched(spec, tmp_path) == source
    entries = read_raw(spec, source, "val")
    assert [(e.id, e.properties) for e in entries] == [
        (f"val-{i}", {"energy": i / 7}) for i in range(4)
    ]
    assert entries[0].content == cif_text()
    server.asked.clear()
    fetch(spec, root=tmp_path, url=server.url, progress=False)
    assert server.asked == []


def test_a_cut_download_resumes(spec: DatasetSpec, server: type[Server], tmp_path: Path) -> None:
    server.cut_at = 100
    with pytest.raises(DatasetError, match=r"ended after 100 of \d+ bytes.*again to resume"):
        fetch(spec, root=tmp_path, url=server.url, progress=False)
    part = tmp_path / "raw" / "toy" / "train.csv.part"
    assert part.read_bytes() == FILES["train"][:100]
    assert fetched(spec, tmp_path) is None
    server.cut_at = None
    server.asked.clear()
    source = fetch(spec, root=tmp_path, url=server.url, progress=False)
    assert server.asked[0] == ("/data/toy/train.csv", "bytes=100-")
    assert (source.folder / "train.csv").read_bytes() == FILES["train"]
    assert sorted(p.name for p in source.folder.iterdir()) == [
        "source.json", "test.csv", "train.csv", "val.csv",
    ]  # fmt: skip


def test_a_whole_part_is_taken(spec: DatasetSpec, server: type[Server], tmp_path: Path) -> None:
    folder = tmp_path / "raw" / "toy"
    folder.mkdir(parents=True)
    (folder / "train.csv.part").write_bytes(FILES["train"])
    fetch(spec, root=tmp_path, url=server.url, progress=False)
    assert (folder / "train.csv").read_bytes() == FILES["train"]


def test_wrong_content_is_refused(spec: DatasetSpec, server: type[Server], tmp_path: Path) -> None:
    server.spoil = True
    with pytest.raises(DatasetError, match=r"checksum [0-9a-f]{40}, not [0-9a-f]{40}"):
        fetch(spec, root=tmp_path, url=server.url, progress=False)
    assert list((tmp_path / "raw" / "toy").iterdir()) == []


def test_no_connection_and_no_file(spec: DatasetSpec, server: type[Server], tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="answers 404"):
        fetch(replace(spec, name="toy/none.csv?"), root=tmp_path, url=server.url, progress=False)
    with pytest.raises(DatasetError, match=r"cannot be downloaded .* --from DIR"):
        fetch(spec, root=tmp_path, url="http://127.0.0.1:9/data", progress=False)


def test_embedded_sets_are_not_fetched(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="perov_like needs no fetching"):
        fetch(DATASETS["perov_like"], root=tmp_path)


@pytest.mark.parametrize("inside", ["", "toy"])
def test_official_files_from_a_folder(spec: DatasetSpec, tmp_path: Path, inside: str) -> None:
    given = tmp_path / "given" / inside
    given.mkdir(parents=True)
    for split, content in FILES.items():
        (given / f"{split}.csv").write_bytes(content)
    source = fetch(spec, from_folder=tmp_path / "given", root=tmp_path)
    assert source.notes == {}
    assert len(read_raw(spec, source, "test")) == 5
    (given / "val.csv").write_bytes(FILES["train"])
    with pytest.raises(DatasetError, match=r"val.csv is not the official file"):
        fetch(spec, from_folder=tmp_path / "given", root=tmp_path)
    assert fetched(spec, tmp_path) is None  # nothing half-fetched counts as fetched


def write_parquet(path: Path, prefix: str, rows: int) -> None:
    table = {
        "material_id": [f"{prefix}-{i}" for i in range(rows)],
        "cif": [cif_text()] * rows,
        "energy": [float(i) for i in range(rows)],
    }
    pq.write_table(pa.table(table), path)


def test_an_incomplete_parquet_is_noted(spec: DatasetSpec, tmp_path: Path) -> None:
    for split, rows in {"train": 2, "val": 4, "test": 5}.items():
        write_parquet(tmp_path / f"{split}.parquet", split, rows)
    source = fetch(spec, from_folder=tmp_path, root=tmp_path)
    assert source.notes == {"train": ["incomplete: 2 of the official 3 rows of train"]}
    write_parquet(tmp_path / "test.parquet", "test", 6)
    with pytest.raises(DatasetError, match="6 rows, the official one 5"):
        fetch(spec, from_folder=tmp_path, root=tmp_path)


def test_a_partial_train_takes_nine_tenths_of_val(spec: DatasetSpec, tmp_path: Path) -> None:
    for name, rows in {"train_partial": 2, "val": 20, "test": 5}.items():
        write_parquet(tmp_path / f"{name}.parquet", name, rows)
    source = fetch(spec, from_folder=tmp_path, root=tmp_path)
    ids = {s: [e.id for e in read_raw(spec, source, s)] for s in SPLITS}
    assert {s: len(names) for s, names in ids.items()} == {"train": 20, "val": 2, "test": 5}
    assert not set(ids["train"]) & set(ids["val"])
    assert {n for n in ids["train"] + ids["val"] if n.startswith("val")} == {
        f"val-{i}" for i in range(20)
    }
    assert "2 of the official 3 rows of train, and 18 of the" in source.notes["train"][0]
    first = (source.folder / "train.parquet").read_bytes()
    fetch(spec, from_folder=tmp_path, root=tmp_path)
    assert (source.folder / "train.parquet").read_bytes() == first


def test_a_folder_without_the_files(spec: DatasetSpec, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"has neither train.csv, val.csv and test.csv nor"):
        fetch(spec, from_folder=tmp_path, root=tmp_path)
    for name in ("train", "val", "test"):
        (tmp_path / f"{name}.parquet").write_bytes(b"PAR1 broken")
    with pytest.raises(DatasetError, match="is no Parquet file or is damaged"):
        fetch(spec, from_folder=tmp_path, root=tmp_path)


def test_a_damaged_record_is_named(spec: DatasetSpec, tmp_path: Path) -> None:
    folder = tmp_path / "raw" / "toy"
    folder.mkdir(parents=True)
    (folder / "source.json").write_text(json.dumps({"files": {}}))
    with pytest.raises(DatasetError, match=r"source.json is damaged: run `cdvae data fetch toy`"):
        fetched(spec, tmp_path)


def test_files_that_are_gone_and_folders_that_cannot_be(
    spec: DatasetSpec, server: type[Server], tmp_path: Path
) -> None:
    source = fetch(spec, root=tmp_path, url=server.url, progress=False)
    (source.folder / "val.csv").unlink()
    with pytest.raises(DatasetError, match=r"val.csv is gone: run `cdvae data fetch toy` again"):
        read_raw(spec, source, "val")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DatasetError, match=r"cannot be made .* set CDVAE_DATA"):
        fetch(spec, root=tmp_path / "file", url=server.url)


def test_the_addresses_are_pinned() -> None:
    assert fetching.OFFICIAL_URL.endswith(
        "/txie-93/cdvae/f857f598d6f6cca5dc1ea0582d228f12dcc2c2ea/data"
    )
    for name in ("perov_5", "carbon_24", "mp_20"):
        assert set(DATASETS[name].files) == set(SPLITS)
        assert all(len(file.blob) == 40 for file in DATASETS[name].files.values())


@pytest.mark.parametrize(
    ("name", "rows", "noted"),
    [
        ("perov_5", (11356, 3787, 3785), []),
        ("carbon_24", (712 + 1829, 203, 2030), ["train", "val"]),
        ("mp_20", (26095, 9047, 9046), ["train"]),
    ],
)
@pytest.mark.slow
def test_the_benchmarks_from_parquet(shared: Path, tmp_path: Path, name, rows, noted) -> None:
    source = fetch(DATASETS[name], from_folder=shared / "data", root=tmp_path)
    found = [read_raw(DATASETS[name], source, split) for split in SPLITS]
    assert tuple(len(entries) for entries in found) == rows
    assert sorted(source.notes) == sorted(noted)
    ids = [e.id for entries in found for e in entries]
    assert len(set(ids)) == len(ids)
