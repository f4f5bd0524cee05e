"""A tiny dataset and an untrained checkpoint, as real as they come, in a temporary place."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from cdvae_core.data.builder import build
from cdvae_core.data.cache import CachedSplit, open_split

sys.path.insert(0, str(Path(__file__).parents[2]))  # `app` is run, not installed

PICTURE = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
    "0000000c4944415408d763606060000000040001f61738550000000049454e44ae426082"
)


@dataclass(frozen=True)
class World:
    """Where everything lies.

    Attributes:
        data: for `CDVAE_DATA`.
        checkpoints: for `CDVAE_CHECKPOINTS`; holds `tiny`.
        dataset: a built dataset of perovskites with one property, `energy`.
    """

    data: Path
    checkpoints: Path
    dataset: str

    @property
    def tiny(self) -> Path:
        return self.checkpoints / "tiny"

    @property
    def environment(self) -> dict[str, str]:
        return {"CDVAE_DATA": str(self.data), "CDVAE_CHECKPOINTS": str(self.checkpoints)}

    def split(self, name: str = "train") -> CachedSplit:
        return open_split(self.dataset, name, self.data)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The dataset, the checkpoint and the environment that points to them."""
    place = tmp_path_factory.mktemp("world")
    made = World(place / "data", place / "checkpoints", "toy_perovskites")
    _write_perovskites(place / f"{made.dataset}.extxyz")
    list(build(str(place / f"{made.dataset}.extxyz"), root=made.data, progress=False))
    _write_checkpoint(made)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in made.environment.items():
            patch.setenv(name, value)
        patch.setattr("app.services.checkpoints.SHIPPED", place / "none")
        yield made


def _write_perovskites(path: Path) -> None:
    from ase import Atoms
    from ase.io import write

    generator = np.random.default_rng(0)
    sites = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    frames = []
    for a in ("Sr", "Ba", "Ca", "K", "La", "Pb"):
        for b in ("Ti", "Zr", "Nb", "Fe", "Sn", "Ta", "Mn", "Hf"):
            length = 3.8 + 0.4 * generator.random()
            moved = sites + 0.01 * generator.normal(size=sites.shape)
            anions = ["O", "O", "O"] if generator.random() < 0.6 else ["O", "O", "N"]
            frame = Atoms([a, b, *anions], scaled_positions=moved, cell=[length] * 3, pbc=True)
            frame.info["energy_guess"] = float(generator.normal())
            frames.append(frame)
    write(path, frames, format="extxyz")


def _write_checkpoint(made: World) -> None:
    from cdvae_core import CDVAE
    from cdvae_core.config import DecoderConfig, EncoderConfig, ModelConfig
    from cdvae_core.scalers import Scalers

    split = made.split()
    prop = next(iter(split.properties))
    encoder = EncoderConfig(hidden=16, blocks=1, int_emb=8, out_emb=16)
    decoder = DecoderConfig(
        hidden=16, blocks=1, neighbours=6, num_radial=8, basis_emb=4, triplet_emb=8
    )
    config = ModelConfig(16, 16, 5, prop, encoder, decoder)
    fitted = (split.arrays["lattice"], split.num_atoms, split.properties[prop])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CDVAE(config, Scalers.fit(*(torch.tensor(v) for v in fitted)))
        for weights in model.encoder.parameters():
            if not weights.any():  # layers that start at zero would give every crystal one latent
                torch.nn.init.normal_(weights, std=0.5)
        torch.nn.init.constant_(model.fc_num_atoms[-1].bias[5], 20.0)  # it always says five atoms
    model.provenance = {"dataset": made.dataset}
    model.save(made.tiny)
    (made.tiny / "loss.png").write_bytes(PICTURE)
    (made.tiny / "card.md").write_text(
        "# Tiny\n\nAn untrained model for tests.\n\n"
        "![loss curve](loss.png)\n\n![x](../secret.png)\n"
    )
    (made.checkpoints / "secret.png").write_bytes(PICTURE)
