"""Which trained models there are, and what each says of itself."""

from __future__ import annotations

import base64
import mimetypes
import os
import re
from dataclasses import dataclass
from pathlib import Path

from cdvae_core.checkpoint import is_baseline, read_config
from cdvae_core.errors import CheckpointError
from cdvae_core.prior import FILE as PRIOR

SHIPPED = Path(__file__).parents[2] / "checkpoints"
EXTRA = "CDVAE_CHECKPOINTS"  # more folders, separated as in PATH
PREFERRED = "perov_like"
_PICTURE = re.compile(r"!\[(?P<alt>[^\]]*)\]\((?P<file>[^)\s]+)\)")


@dataclass(frozen=True)
class CheckpointInfo:
    """One checkpoint, read without its weights.

    Attributes:
        name: of its folder.
        dataset: what it was trained on, None if it does not say.
        prop: the property it predicts, None if none.
        max_atoms: most atoms it can decode.
        latent_dim: width of z.
        has_flow: whether latents can be drawn from a flow prior of its own.
        weights: the identity of its weights, the same wherever they are copied to.
        stamp: changes whenever its files do.
    """

    name: str
    path: Path
    dataset: str | None
    prop: str | None
    max_atoms: int
    latent_dim: int
    has_flow: bool
    weights: str
    stamp: int


def checkpoint_folders() -> dict[str, Path]:
    """Every checkpoint by name, of whatever system: the shipped, then those of `CDVAE_CHECKPOINTS`.

    An entry of the variable is a checkpoint or a folder of checkpoints. The first of a name wins;
    `perov_like` comes first.
    """
    places = [SHIPPED, *(Path(p) for p in os.environ.get(EXTRA, "").split(os.pathsep) if p)]
    found: dict[str, Path] = {}
    for place in places:
        if (place / "config.json").is_file():
            found.setdefault(place.name, place)
        elif place.is_dir():
            for folder in sorted(place.iterdir()):
                if (folder / "config.json").is_file():
                    found.setdefault(folder.name, folder)
    return dict(sorted(found.items(), key=lambda item: item[0] != PREFERRED))


def cdvae_folders() -> dict[str, Path]:
    """Those that have a latent space to walk in; a damaged one stays, to be complained of."""
    return {name: path for name, path in checkpoint_folders().items() if not _is_baseline(path)}


def _is_baseline(path: Path) -> bool:
    try:
        return is_baseline(read_config(path))
    except CheckpointError:
        return False


def describe(path: Path) -> CheckpointInfo:
    """What `config.json` says.

    Raises:
        CheckpointError: no checkpoint, damaged, foreign or of another version.
    """
    config = read_config(path)
    model, provenance = config.get("model"), config.get("provenance") or {}
    if not isinstance(model, dict) or not {"max_atoms", "latent_dim"} <= model.keys():
        raise CheckpointError(f"{path / 'config.json'} does not describe a model")
    return CheckpointInfo(
        path.name, path, provenance.get("dataset"), model.get("prop"),
        model["max_atoms"], model["latent_dim"], (path / PRIOR).is_file(),
        str(config.get("weights", "")), stamp(path),
    )  # fmt: skip


def stamp(path: Path) -> int:
    """The time of the last change of a checkpoint's files, nanoseconds."""
    return max((f.stat().st_mtime_ns for f in path.iterdir() if f.is_file()), default=0)


def card(path: Path) -> str:
    """The card as Markdown, its pictures inside the text; empty where there is no card."""
    file = path / "card.md"
    if not file.is_file():
        return ""
    text = file.read_text(encoding="utf-8", errors="replace")
    return _PICTURE.sub(lambda match: _inline(path, match), text)


def _inline(folder: Path, match: re.Match[str]) -> str:
    """A picture of the checkpoint's own folder as data; anything else by its description alone."""
    file = (folder / match["file"]).resolve()
    kind = mimetypes.guess_type(file.name)[0] or ""
    if not file.is_relative_to(folder.resolve()) or not file.is_file() or "image/" not in kind:
        return f"*{match['alt'] or match['file']}*"
    data = base64.b64encode(file.read_bytes()).decode()
    return f"![{match['alt']}](data:{kind};base64,{data})"
