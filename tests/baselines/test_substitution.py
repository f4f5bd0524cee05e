"""Ion substitution: neutral crystals on the prototypes of the training split."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pymatgen.core.structure_prediction.volume_predictor import DLSVolumePredictor

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))
from examples import PEROVSKITE, crystal, made_split

from cdvae_core.baseline_configs import SubstitutionConfig
from cdvae_core.baselines import checkpoint
from cdvae_core.baselines.substitution import Substitution
from cdvae_core.crystal import Crystal
from cdvae_core.errors import ConfigError, StructureError

CONFIG = SubstitutionConfig(max_atoms=20)
OXIDES = [
    crystal([38, 22, 8, 8, 8], PEROVSKITE, 3.9 * np.eye(3)),  # SrTiO3
    crystal([19, 41, 8, 8, 8], PEROVSKITE, 4.0 * np.eye(3)),  # KNbO3
]


@pytest.fixture(scope="module")
def model() -> Substitution:
    return Substitution.build(CONFIG, made_split(OXIDES))


def test_the_table_is_that_of_pymatgen(model: Substitution) -> None:
    # P(Ca2+ | Sr2+) and P(O2- | S2-) by SubstitutionProbability.cond_prob
    place = {(int(z), int(q)): i for i, (z, q) in enumerate(zip(model.number, model.charge))}  # noqa: B905
    assert torch.allclose(model.chance.sum(0), torch.ones(len(model.number)), atol=1e-5)
    assert model.chance[place[20, 2], place[38, 2]] == pytest.approx(0.0629191, rel=1e-4)
    assert model.chance[place[8, -2], place[16, -2]] == pytest.approx(0.1449317, rel=1e-4)


def test_what_is_made_is_neutral_new_and_on_a_prototype(model: Substitution) -> None:
    alone = Substitution.build(CONFIG, made_split(OXIDES[:1]))
    made = [*model.sample(10, torch.Generator()), *alone.sample(10, torch.Generator())]
    crystals = [one for one in made if isinstance(one, Crystal)]
    assert len(crystals) >= 16
    assert all(one.formula != OXIDES[0].formula for one in crystals[-6:])
    for one in crystals:
        assert np.allclose(one.frac_coords, PEROVSKITE)
        assert np.allclose(one.angles, 90) and np.ptp(one.lengths) < 1e-4
        assert 2.5 < one.lengths[0] < 6.5
        numbers = one.atomic_numbers
        assert numbers[2] == numbers[3] == numbers[4] and len(set(numbers.tolist())) == 3


def test_the_same_seed_makes_the_same_after_saving(model: Substitution, tmp_path: Path) -> None:
    model.save(tmp_path)
    again = checkpoint.load(tmp_path)
    one, other = (list(m.sample(6, torch.Generator().manual_seed(3))) for m in (model, again))
    assert [str(getattr(c, "formula", c)) for c in one] == [
        str(getattr(c, "formula", c)) for c in other
    ]


@pytest.mark.parametrize("volume", [0.0, float("nan")])
def test_a_volume_that_is_none_is_an_error_in_its_place(
    model: Substitution, monkeypatch: pytest.MonkeyPatch, volume: float
) -> None:
    monkeypatch.setattr(DLSVolumePredictor, "predict", lambda self, structure: volume)
    made = list(model.sample(3, torch.Generator().manual_seed(0)))
    assert len(made) == 3 and all(isinstance(one, StructureError) for one in made)


def test_carbon_has_no_ions() -> None:
    diamond = crystal([6, 6], [[0, 0, 0], [0.25] * 3], 2.5 * np.eye(3) + 0.1)
    with pytest.raises(ConfigError, match="no crystal of made is made of ions"):
        Substitution.build(CONFIG, made_split([diamond]))
