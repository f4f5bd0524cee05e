"""What `cdvae data info` says of a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cdvae_core.data.cache import CachedSplit, find_split, read_split
from cdvae_core.data.fetch import fetched
from cdvae_core.data.registry import SPLITS, dataset_spec


def describe(name: str, root: Path | None = None) -> str:
    """Several lines of text: title, source, and for each built split its numbers.

    Raises:
        DatasetError: unknown name, or a damaged file.
    """
    spec = dataset_spec(name, root)
    lines = [
        f"{spec.name}: {spec.title}",
        f"source: {spec.source}; at most {spec.max_atoms} atoms; default property: "
        f"{spec.default_property or 'none'}",
    ]
    source = fetched(spec, root) if spec.files else None
    if source is not None:
        lines.append(f"fetched into {source.folder}")
    for split in SPLITS:
        path = find_split(name, split, root)
        if path is None:
            lines.append(f"{split}: not built, run `cdvae data build {name}`")
        else:
            lines += _describe_split(read_split(path), spec.properties)
    return "\n".join(lines)


def _describe_split(split: CachedSplit, units: Mapping[str, str]) -> list[str]:
    atoms = split.num_atoms
    elements = len(np.unique(split.arrays["atomic_numbers"]))
    edges = split.arrays["num_edges"].mean()
    lines = [
        f"{split.info.split}: {len(split):,} crystals, {atoms.min()} to {atoms.max()} atoms "
        f"(mean {atoms.mean():.1f}), {elements} elements, {edges:.1f} edges each, "
        f"fingerprint {split.fingerprint[:16]}"
    ]
    for name, values in split.properties.items():
        known = values[np.isfinite(values)]
        unit = units.get(name, "")
        spread = (
            f"{known.min():.4g} to {known.max():.4g} {unit}, mean {known.mean():.4g}, "
            f"std {known.std():.4g}"
            if len(known)
            else "unknown"
        )
        gap = f" ({len(values) - len(known):,} unknown)" if 0 < len(known) < len(values) else ""
        lines.append(f"  {name}: {spread}{gap}")
    lines += [f"  note: {note}" for note in split.info.notes]
    lines += [f"  skipped {s.id}: {s.reason}" for s in split.info.skipped]
    return lines
