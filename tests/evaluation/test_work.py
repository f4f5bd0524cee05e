"""Many tasks: kept as they are done, one that hangs by itself, a cluster that loses a worker."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from perovskites import perovskite

from cdvae_core.evaluation.child import Worker
from cdvae_core.evaluation.work import CHUNK, Crew, Store, key, run
from cdvae_core.structures import read_crystals

QUIET = Crew(jobs=2, quiet=True)
GIVEN = [(perovskite(3.8 + 0.01 * i),) for i in range(3 * CHUNK)]


def test_answers_come_in_order_and_only_once(tmp_path: Path) -> None:
    first = run("measurement", GIVEN[:5], Store(tmp_path), QUIET, "")
    volumes = [answer["value"]["volume"] for answer in first]
    assert volumes == sorted(volumes) and len(set(volumes)) == 5
    files = set(tmp_path.iterdir())
    again = run("measurement", [*GIVEN[:5], GIVEN[0]], Store(tmp_path), QUIET, "")
    assert again == [*first, first[0]] and set(tmp_path.iterdir()) == files


def test_the_key_is_the_content() -> None:
    one = perovskite(4.0)
    assert key("measurement", (one,)) == key("measurement", (perovskite(4.0),))
    others = [
        ("measurement", (perovskite(4.0000001),)),
        ("rmse", (one, one)),
        ("equals_any", (one, [one])),
    ]
    assert len({key("measurement", (one,)), *(key(*other) for other in others)}) == 4


def test_one_that_hangs_times_out_alone_and_is_tried_again(tmp_path: Path) -> None:
    """A group of crystals that all differ a little takes much longer than the others."""
    many = [perovskite(4.0, shift=0.0005 * i) for i in range(2000)]
    arguments = [([perovskite(4.0)],), (many,), ([perovskite(4.1)],)]
    crew = Crew(jobs=1, timeout=2.0, quiet=True)
    found = run("first_of_each", arguments, Store(tmp_path), crew, "")
    assert found[0] == found[2] == {"value": [0]}
    assert found[1] == {"failure": "it took more than 2 s"}
    assert key("first_of_each", arguments[1]) not in Store(tmp_path).answers


def test_a_task_that_raises_says_why() -> None:
    worker = Worker()
    assert "TypeError" in worker.do("rmse", (perovskite(4.0),), 60)["failure"]
    assert worker.do("rmse", (perovskite(4.0), perovskite(4.0)), 60)["value"] == pytest.approx(0)


def test_a_process_that_dies_is_replaced() -> None:
    worker = Worker()
    assert "value" in worker.do("rmse", (perovskite(4.0), perovskite(4.0)), 60)
    assert worker._process is not None
    os.kill(worker._process.pid, signal.SIGKILL)
    assert "ended" in worker.do("rmse", (perovskite(4.0), perovskite(4.0)), 60)["failure"]
    assert "value" in worker.do("rmse", (perovskite(4.0), perovskite(4.0)), 60)


RUN = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from perovskites import perovskite
from cdvae_core.evaluation.work import Crew, Store, run
given = [(perovskite(3.8 + 0.001 * i),) for i in range(64)]
run("measurement", given, Store(Path(sys.argv[1])), Crew(jobs=1, quiet=True), "")
"""


def test_killed_for_good_and_run_again(tmp_path: Path) -> None:
    store = tmp_path / "store"
    command = [sys.executable, "-c", RUN.format(tests=str(Path(__file__).parent)), str(store)]
    process = subprocess.Popen(command)
    while len(list(store.glob("*.json"))) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    kept = {path.name: path.stat().st_mtime_ns for path in store.glob("*.json")}
    assert 2 <= len(kept) < 8 and not list(store.glob("*.tmp"))
    subprocess.run(command, check=True)
    now = {path.name: path.stat().st_mtime_ns for path in store.glob("*.json")}
    assert kept.items() <= now.items()
    answers = [json.loads(path.read_text()) for path in store.glob("*.json")]
    assert sum(map(len, answers)) == 64  # none twice, none lost


@pytest.fixture
def cluster() -> Iterator[tuple[str, list[subprocess.Popen]]]:
    """A Dask scheduler and two worker processes on this machine."""
    distributed = pytest.importorskip("distributed")
    dask, quiet = Path(sys.executable).parent / "dask", subprocess.DEVNULL
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    commands = [["scheduler", "--host", "127.0.0.1", "--port", str(port)]]
    commands += 2 * [["worker", address, "--nthreads", "1", "--no-nanny"]]
    processes = [
        subprocess.Popen([dask, *words, "--no-dashboard"], stdout=quiet, stderr=quiet)
        for words in commands
    ]
    try:
        with distributed.Client(address, timeout=60) as client:
            client.wait_for_workers(2, timeout=120)
        yield address, processes[1:]
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_a_cluster_loses_a_worker_and_no_crystal(
    tmp_path: Path, cluster: tuple[str, list[subprocess.Popen]]
) -> None:
    """One of two workers is killed midway."""
    address, workers = cluster
    given = [(perovskite(3.8 + 0.001 * i),) for i in range(160)]
    store = Store(tmp_path)
    killer = subprocess.Popen(
        [sys.executable, "-c",
         "import os, pathlib, signal, sys, time\n"
         "while not list(pathlib.Path(sys.argv[1]).glob('*.json')): time.sleep(0.05)\n"
         "os.kill(int(sys.argv[2]), signal.SIGKILL)", tmp_path, str(workers[0].pid)]
    )  # fmt: skip
    found = run("measurement", given, store, Crew(scheduler=address, quiet=True), "")
    assert killer.wait(10) == 0 and workers[0].wait(10) == -signal.SIGKILL
    volumes = [answer["value"]["volume"] for answer in found]
    assert len(volumes) == 160 and volumes == sorted(volumes)
    assert len(store.answers) == 160


@pytest.mark.slow
def test_a_cluster_samples_the_same_crystals(
    tmp_path: Path, cluster: tuple[str, list[subprocess.Popen]]
) -> None:
    checkpoint = Path(__file__).parents[2] / "checkpoints" / "perov_like"
    command = ["-c", "from cdvae_core.cli import main; main()", "sample", str(checkpoint)]
    command += ["-n", "6", "--batch-size", "2", "--device", "cpu", "--seed", "3", "--out"]
    for out, more in (("here", []), ("there", ["--scheduler", cluster[0]])):
        subprocess.run([sys.executable, *command, str(tmp_path / out), *more], check=True)
    for i in range(6):
        one, other = (
            read_crystals(tmp_path / out / f"sample-{i:05d}.cif")[0] for out in ("here", "there")
        )
        assert one.formula == other.formula
        assert np.allclose(one.frac_coords, other.frac_coords, atol=1e-4)
