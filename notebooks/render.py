"""Run the notebooks and keep what they show as static pictures, for where no JavaScript runs.

    python notebooks/render.py            # all of them
    python notebooks/render.py 01 04      # those whose names begin so

3D views are kept as their own pictures; Plotly's figures are drawn by a headless Chromium. A
notebook that fails, warns, or says where it ran is not written.
"""

from __future__ import annotations

import sys
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from typing import Any

import nbformat
from lab import ROOT, fewer_colours
from nbclient import NotebookClient
from playwright.sync_api import Page, sync_playwright
from plotly.offline import get_plotlyjs

HERE = Path(__file__).parent
PLOTLY = "application/vnd.plotly.v1+json"
LARGEST = 600_000  # bytes of a notebook
_DRAW = """async (figure) => {
  const box = document.createElement("div");
  document.body.appendChild(box);
  await Plotly.newPlot(box, figure.data, figure.layout);
  const {width, height} = box._fullLayout;
  const url = await Plotly.toImage(box, {format: "png", width, height, scale: 1.25});
  box.remove();
  return url.split(",")[1];
}"""


def main(names: Sequence[str]) -> None:
    found = [p for p in sorted(HERE.glob("*.ipynb")) if p.name.startswith(tuple(names or [""]))]
    if not found:
        sys.exit(f"no notebook begins with {' or '.join(names) or 'anything'}")
    with artist() as page:
        for path in found:
            notebook = run(path)
            for cell in notebook.cells:
                if cell.cell_type == "code":
                    cell.outputs = [o for o in (still(o, page) for o in cell.outputs) if o]
            write(notebook, path)


def run(path: Path) -> Any:
    """The notebook with the outputs of a fresh run."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    }
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", record_timing=False, coalesce_streams=True,
        resources={"metadata": {"path": str(HERE)}},
    )  # fmt: skip
    client.execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    return notebook


def still(output: Any, page: Page) -> Any:
    """An output without JavaScript; None where nothing is left of it.

    Raises:
        SystemExit: it is a warning.
    """
    if output.output_type == "stream" and output.name == "stderr":
        sys.exit(f"a cell warns:\n{output.text}")
    data = output.get("data")
    if data is None:
        return output
    if PLOTLY in data:
        picture = b64decode(page.evaluate(_DRAW, data[PLOTLY]))
        words = _title(data[PLOTLY])
        output.data = {"image/png": _text(fewer_colours(picture)), "text/plain": words}
    elif "<script" in data.get("text/html", ""):
        if "image/png" not in data:
            return None
        del data["text/html"]
    output.metadata = {}
    return output


def _title(figure: dict[str, Any]) -> str:
    """What a figure is called, for those who cannot see it."""
    layout = figure.get("layout", {})
    axes = [layout.get(name, {}).get("title", {}).get("text") for name in ("yaxis", "xaxis")]
    named = layout.get("title", {}).get("text")
    return "Plot: " + (named or " against ".join(filter(None, axes)) or "figure")


def _text(png: bytes) -> str:
    return b64encode(png).decode()


def write(notebook: Any, path: Path) -> None:
    """Keep it, if it is small and does not say where it ran."""
    text = nbformat.writes(notebook) + "\n"
    for place in {str(ROOT), str(Path.home()), "/tmp/"}:
        if place in text:
            sys.exit(f"{path.name} shows a path of this machine: {place}")
    if "\\u001b" in text:
        sys.exit(f"{path.name} shows a progress bar or coloured text of a terminal")
    if len(text) > LARGEST:
        sys.exit(f"{path.name} would have {len(text):,} bytes; {LARGEST:,} is the limit")
    path.write_text(text, encoding="utf-8")
    print(f"{path.name}: {len(notebook.cells)} cells, {len(text) / 1000:.0f} kB")


@contextmanager
def artist() -> Iterator[Page]:
    """A page of a headless Chromium that has Plotly."""
    chromium = which("chromium") or which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_content("<html><body></body></html>")
        page.add_script_tag(content=get_plotlyjs())
        yield page
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
