"""What the site shows and nobody types twice; MkDocs runs this as a hook (see mkdocs.yml).

The reference of the command is written from the command, that of the package has a page for each
module, tables of datasets come from the registry, and cards, benchmarks and the like are the files
that lie elsewhere in the repository.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

from cdvae_core import experiment
from cdvae_core.cli import app
from cdvae_core.config import to_dict
from cdvae_core.data.registry import DATASETS, OFFICIAL_URL

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "cdvae_core"
SHIM = "https://unpkg.com/iframe-worker/shim"

# How README names them, and where they are on the site.
_MOVED = {"docs/": "", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


def _found(pattern: str) -> list[Path]:
    return sorted(ROOT.glob(pattern))


ELSEWHERE = {
    "index.md": "README.md",
    "benchmarks.md": "benchmarks/README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "data/perov_like.md": "cdvae_core/data/embedded/perov_like.md",
    "data/mp_like.md": "cdvae_core/data/embedded/mp_like.md",
    **{
        f"results/{f.name}": f"benchmarks/results/{f.name}"
        for f in _found("benchmarks/results/*.svg")
    },
    **{
        f"models/{file.parent.name}/{file.name}": str(file.relative_to(ROOT))
        for pattern in ("checkpoints/*/card.md", "checkpoints/*/*.png")
        for file in _found(pattern)
    },
}


def on_config(config: MkDocsConfig) -> None:
    reference = next(part["Reference"] for part in config.nav if "Reference" in part)
    reference.append({"cdvae_core": [{name: page} for page, name in modules()]})


def on_files(files: Files, config: MkDocsConfig) -> None:
    for page, source in ELSEWHERE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    files.append(File.generated(config, "command-line.md", content=command_line()))
    for page, name in modules():
        files.append(File.generated(config, page, content=f"::: cdvae_core.{name}\n"))


def on_page_markdown(markdown: str, **_: Any) -> str:
    """`<!-- dataset: NAME -->` and the like become what the package says."""
    made = {"dataset": dataset, "experiment": configuration, "experiment file": configuration_file}
    wanted = re.compile(rf"<!-- ({'|'.join(made)}): (\w+) -->")
    for place, page in _MOVED.items():
        markdown = markdown.replace(f"]({place}", f"]({page}")
    return wanted.sub(lambda m: made[m[1]](m[2]), markdown)


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """What the theme's search would fetch from elsewhere lies in the site."""
    return output.replace(SHIM, get_relative_url("javascripts/iframe-worker.js", page.url))


def on_post_template(output_content: str, **_: Any) -> str:
    return output_content.replace(SHIM, "javascripts/iframe-worker.js")


def modules() -> Iterator[tuple[str, str]]:
    """A page for each module of the package, and its name."""
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = path.relative_to(PACKAGE).with_suffix("")
        if inside.name != "__init__":
            yield f"api/{inside.as_posix()}.md", ".".join(inside.parts)


def dataset(name: str) -> str:
    spec = DATASETS[name]
    rows = [
        ("what", spec.title),
        ("source", spec.source),
        ("most atoms in a cell", str(spec.max_atoms)),
        ("properties", ", ".join(f"`{key}` ({unit})" for key, unit in spec.properties.items())),
        ("default property", f"`{spec.default_property}`"),
        *((f"{split} rows", f"{file.rows:,}") for split, file in spec.files.items()),
        ("fetched from", f"<{OFFICIAL_URL}/{name}>"),
        *((f"git blob of {split}.csv", f"`{file.blob}`") for split, file in spec.files.items()),
    ]
    return "\n".join(
        ["| registry | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows)]
    )


def configuration(name: str) -> str:
    text = yaml.safe_dump(to_dict(experiment.read(name)), sort_keys=False)
    return f"```yaml\n{text}```"


def configuration_file(name: str) -> str:
    return f"```yaml\n{(PACKAGE / 'configs' / f'{name}.yaml').read_text(encoding='utf-8')}```"


def command_line() -> str:
    """The reference of `cdvae`, from the command itself."""
    command = typer.main.get_command(app)
    parts = ["# The command line", command.help, "Every command has `--help`."]
    return "\n\n".join([*parts, *_sections(command, "cdvae")]) + "\n"


def _sections(group: Any, path: str) -> Iterator[str]:
    for name, command in group.commands.items():
        whole = f"{path} {name}"
        if hasattr(command, "commands"):
            yield from _sections(command, whole)
            continue
        yield f"## {whole}"
        yield command.help
        given = [p for p in command.params if p.param_type_name == "argument"]
        words = [
            p.metavar or (p.name.upper() if p.required else f"[{p.name.upper()}]") for p in given
        ]
        yield f"```\n{' '.join([whole, *words, '[OPTIONS]'])}\n```"
        yield "\n".join(["| option | | |", "|---|---|---|", *map(_row, command.params)])


def _row(parameter: Any) -> str:
    names = ", ".join(f"`{name}`" for name in parameter.opts)
    if parameter.param_type_name == "argument":
        names = f"`{parameter.metavar or parameter.name.upper()}`"
    if parameter.required:
        default = "required"
    elif parameter.default in (None, "", False):
        default = ""
    else:
        default = f"default `{parameter.default}`"
    text = (parameter.help or "").replace("|", "\\|").replace("[", "\\[")
    return f"| {names} | {text} | {default} |"
