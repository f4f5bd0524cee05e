"""The machine that a benchmark runs on, how fast it multiplies, and where results are kept."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import torch

from cdvae_core.files import write_atomically

RESULTS = Path(__file__).parent / "results"
_SHAPE = (20_000, 128, 128)


def matrix_rate(dtype: torch.dtype = torch.float32, device: str = "cpu") -> float:
    """GFLOP/s of products of 20,000 x 128 by 128 x 128, as the decoder's are."""
    n, k, m = _SHAPE
    a, b = (torch.randn(s, device=device).to(dtype) for s in ((n, k), (k, m)))
    return 2 * n * k * m / seconds(lambda: a @ b, 20, device) / 1e9


def seconds(work: Callable[[], Any], runs: int, device: str = "cpu") -> float:
    """The median over so many runs."""
    taken = []
    for _ in range(runs):
        begun = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - begun)
    return median(taken)


def cdvae(*words: str, **environment: str) -> None:
    """Run the command line; where it fails, what it said ends the benchmark."""
    command = [str(Path(sys.executable).with_name("cdvae")), *words]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | environment, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def describe() -> dict[str, Any]:
    """Processor, threads and versions."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [ln for ln in info.read_text().splitlines() if ln.startswith("model name")]
        name = lines[0].partition(":")[2].strip() if lines else name
    found: dict[str, Any] = {
        "date": date.today().isoformat(),
        "processor": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def report(name: str, rows: list[dict[str, Any]], **more: Any) -> None:
    """Print rows as a table and write `benchmarks/results/NAME.json`."""
    columns = list(rows[0])
    cells = [[_text(row[c]) for c in columns] for row in rows]
    widths = [max(len(c), *(len(row[i]) for row in cells)) for i, c in enumerate(columns)]
    for line in (columns, ["-" * w for w in widths], *cells):
        print("| " + " | ".join(t.ljust(w) for t, w in zip(line, widths, strict=True)) + " |")
    for key, value in more.items():
        print(f"{key.replace('_', ' ')}: {_text(value)}")
    keep(name, rows, **more)


def keep(name: str, rows: list[dict[str, Any]], **more: Any) -> None:
    """Write `benchmarks/results/NAME.json`."""
    RESULTS.mkdir(exist_ok=True)
    content = {"machine": describe(), **more, "rows": rows}
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    write_atomically(RESULTS / f"{name}.json", text.encode())


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 1 else f"{value:,.2f}"
    return "-" if value is None else str(value)
