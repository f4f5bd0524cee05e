"""Ion substitution: what a chemist would do instead of training a network.

A crystal of the training split is drawn, each of its ions is replaced by one that takes its place
in known crystals (the probabilities that Hautier et al. 2011 mined from the ICSD, as pymatgen has
them), and the cell is scaled to the bond lengths of the new elements (Chu et al. 2018). What is
kept is charge neutral and differs from its prototype in at least one ion.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from cdvae_core.baseline_configs import SubstitutionConfig
from cdvae_core.baselines.protocol import Baseline, Made
from cdvae_core.crystal import SYMBOLS, Crystal
from cdvae_core.data.cache import CachedSplit
from cdvae_core.errors import ConfigError, StructureError
from cdvae_core.structures import to_structure

_NEVER_SEEN = -5.0  # lambda of two ions that never replace each other, as in pymatgen


class Substitution(Baseline):
    """The prototypes and the table of substitutions.

    Buffers: `number` and `charge` of each ion `[ions]`; `chance[i, j]`, the probability that ion i
    is found where a crystal had j; the prototypes' `num_atoms`, `ions` (places in the table),
    `frac_coords` and `lattice`.
    """

    config: SubstitutionConfig
    varying: ClassVar = (
        "number", "charge", "chance", "num_atoms", "ions", "frac_coords", "lattice",
    )  # fmt: skip
    number: Tensor
    charge: Tensor
    chance: Tensor
    num_atoms: Tensor
    ions: Tensor
    frac_coords: Tensor
    lattice: Tensor

    def __init__(self, config: SubstitutionConfig) -> None:
        super().__init__(config)
        for name in self.varying:
            self.register_buffer(name, torch.zeros(0))

    @classmethod
    def build(cls, config: SubstitutionConfig, train: CachedSplit) -> Substitution:
        """All crystals of the split whose ions are in the table and sum to no charge.

        Raises:
            ConfigError: there is none, as in carbon.
        """
        model = cls(config)
        model.number, model.charge, model.chance = _table()
        place = {
            (int(z), int(q)): i
            for i, (z, q) in enumerate(zip(model.number, model.charge, strict=True))
        }
        kept, ions = [], []
        for i in range(len(train)):
            found = _ions(train.crystal(i).atomic_numbers, place)
            if found is not None:
                kept.append(train.crystal(i))
                ions.append(found)
        if not kept:
            raise ConfigError(
                f"no crystal of {train.info.dataset} is made of ions that are known to replace "
                "each other"
            )
        model.num_atoms = torch.tensor([c.num_atoms for c in kept])
        model.ions = torch.from_numpy(np.concatenate(ions))
        coords = np.concatenate([c.frac_coords for c in kept])
        model.frac_coords = torch.from_numpy(coords.astype(np.float32))
        lattices = np.stack([c.lattice for c in kept])
        model.lattice = torch.from_numpy(lattices.astype(np.float32))
        return model

    def sample(self, count: int, generator: torch.Generator) -> Iterator[Made]:
        first = self.num_atoms.cumsum(0) - self.num_atoms
        for _ in range(count):
            yield self._one(first, generator)

    def _one(self, first: Tensor, generator: torch.Generator) -> Made:
        """One crystal: prototypes and ions are drawn until a neutral crystal is met."""
        for _ in range(self.config.tries):
            chosen = int(
                torch.randint(len(self.num_atoms), (), generator=generator, device=first.device)
            )
            atoms = slice(int(first[chosen]), int(first[chosen] + self.num_atoms[chosen]))
            old, of_atom = self.ions[atoms].unique(return_inverse=True)
            new = torch.multinomial(self.chance[:, old].mT, 1, generator=generator).squeeze(1)
            charge = self.charge[new][of_atom].sum()
            if charge == 0 and len(new.unique()) == len(new) and not torch.equal(new, old):
                numbers = self.number[new][of_atom].cpu().numpy()
                coords = self.frac_coords[atoms].double().cpu().numpy()
                return _scaled(numbers, coords, self.lattice[chosen].double().cpu().numpy())
        return StructureError(f"no neutral crystal was met in {self.config.tries} draws")


def _table() -> tuple[Tensor, Tensor, Tensor]:
    """Atomic numbers and charges of the ions, and the conditional probabilities between them."""
    from pymatgen.core import Species, structure_prediction

    file = Path(structure_prediction.__path__[0]) / "data" / "lambda.json"
    rows = [row for row in json.loads(file.read_text()) if "D1+" not in row]  # D1+: deuterium
    names = sorted({name for row in rows for name in row[:2]})
    place = {name: i for i, name in enumerate(names)}
    weight = np.full((len(names), len(names)), _NEVER_SEEN)
    for one, other, value in rows:
        weight[place[one], place[other]] = weight[place[other], place[one]] = float(value)
    chance = np.exp(weight)
    species = [Species.from_str(name) for name in names]
    return (
        torch.tensor([s.Z for s in species]),
        torch.tensor([round(s.oxi_state or 0) for s in species]),
        torch.from_numpy((chance / chance.sum(0)).astype(np.float32)),
    )


def _ions(numbers: np.ndarray, place: dict[tuple[int, int], int]) -> np.ndarray | None:
    """Places in the table of the atoms' likeliest ions, None where they are not all there."""
    from pymatgen.core import Composition

    composition = Composition({SYMBOLS[z]: int(n) for z, n in zip(*_counts(numbers), strict=True)})
    guesses = composition.oxi_state_guesses()
    if not guesses:
        return None
    charges = {SYMBOLS.index(str(symbol)): charge for symbol, charge in guesses[0].items()}
    ions = [(int(z), charges[int(z)]) for z in numbers]
    if not all(charge == round(charge) and (z, round(charge)) in place for z, charge in ions):
        return None
    return np.array([place[z, round(charge)] for z, charge in ions])


def _counts(numbers: np.ndarray) -> tuple[list[int], list[int]]:
    found, counts = np.unique(numbers, return_counts=True)
    return found.tolist(), counts.tolist()


def _scaled(numbers: np.ndarray, coords: np.ndarray, lattice: np.ndarray) -> Made:
    """The crystal with the volume that its bond lengths ask for."""
    from pymatgen.core.structure_prediction.volume_predictor import DLSVolumePredictor

    crystal = Crystal(numbers, coords, lattice)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            volume = DLSVolumePredictor().predict(to_structure(crystal))
        return Crystal(numbers, coords, lattice * (volume / crystal.volume) ** (1 / 3))
    except Exception as error:  # unknown elements, no neighbours: pymatgen raises what it meets
        return StructureError(f"no volume can be predicted for {crystal.formula}: {error}")
