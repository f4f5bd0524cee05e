"""The tasks as wholes, on sets whose figures can be told by hand or are known."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from perovskites import perovskite

from cdvae_core.crystal import Crystal
from cdvae_core.errors import ConfigError
from cdvae_core.evaluation import scoring
from cdvae_core.evaluation.inputs import Broken, Crystals, read
from cdvae_core.evaluation.noise_floor import drawn, paired, training_of
from cdvae_core.evaluation.scoring import Judge
from cdvae_core.evaluation.work import Crew, Store

sys.path.insert(0, str(Path(__file__).parents[1] / "metrics"))
import golden

SR, CA = (38, 22, 8), (20, 22, 8)


@pytest.fixture
def judge() -> Judge:
    return Judge(Crew(jobs=2, quiet=True), "perov_5", 0, "perov_5")


def stores(folder: Path) -> tuple[Store, Store]:
    return Store(folder / "own"), Store(folder / "reference")


def named(name: str, items: list[Crystal | Broken]) -> Crystals:
    return Crystals(name, [f"{name}-{i}" for i in range(len(items))], items)


def test_a_reconstruction_by_hand(judge: Judge, tmp_path: Path) -> None:
    """Right, right but SMACT rejects it, of other elements, no crystal."""
    odd = perovskite(4.0, (11, 19, 8))  # Na K O3 is not neutral
    true = named("true", [perovskite(4.0), odd, perovskite(4.1), perovskite(4.1, SR)])
    given = named("given", [perovskite(4.1), odd, perovskite(4.1, CA), Broken("no volume")])
    found = scoring.reconstruction(judge, given, true, stores(tmp_path))
    assert found.metrics["match_rate_ungated"] == 0.5 and found.metrics["match_rate"] == 0.25
    assert found.metrics["struct_valid"] == 0.75 and found.metrics["comp_valid"] == 0.5
    assert [row["id"] for row in found.table if row["failures"]] == ["given-3"]
    with pytest.raises(ConfigError, match="pair by pair"):
        scoring.reconstruction(judge, given, true.subset([0, 1]), stores(tmp_path))


def test_the_best_of_several_tries(judge: Judge, tmp_path: Path) -> None:
    true = named("true", [perovskite(4.0), perovskite(4.0, SR)])
    tries = [perovskite(4.0, CA), perovskite(4.0), perovskite(4.0, CA), perovskite(4.0, CA)]
    given = Crystals("given", list("abcd"), tries, tries=2)
    found = scoring.reconstruction(judge, given, true, stores(tmp_path))
    assert found.metrics["match_rate"] == 0.5 and found.counts["tries"] == 2


def test_a_generation_by_hand(judge: Judge, tmp_path: Path) -> None:
    """Of four: two the same, one in the training set, one whose atoms collide."""
    colliding = perovskite(4.0, CA, shift=0.45)  # 0.2 Å from an oxygen
    given = named("given", [perovskite(4.0), perovskite(4.2), perovskite(4.0, SR), colliding])
    reference = named("reference", [perovskite(4.0), perovskite(4.0, (56, 40, 8))])
    training = named("training", [perovskite(3.9, SR)])
    found = scoring.generation(judge, given, reference, stores(tmp_path), training).metrics
    assert found["struct_valid"] == 0.75 and found["comp_valid"] == 1 and found["valid"] == 0.75
    assert found["unique"] == pytest.approx(2 / 3) and found["novel"] == pytest.approx(2 / 3)
    assert found["unique_and_novel"] == pytest.approx(1 / 3)
    assert found["metre"] == 0.5 and found["wdist_num_elems"] == 0
    assert 0 < found["wdist_prop"] < 1  # eV/atom: of the two sets one holds BaZrO3


def test_data_against_itself_is_perfect(judge: Judge, tmp_path: Path) -> None:
    crystals = read("mp_like:test").subset(list(range(0, 400, 20)))
    found = scoring.generation(judge, crystals, crystals, stores(tmp_path))
    for name in ("cov_recall", "cov_precision", "metre", "unique", "struct_valid"):
        assert found.metrics[name] == 1, name
    for name in ("amsd_recall", "amcd_precision", "spacegroup_distance"):
        assert found.metrics[name] == pytest.approx(0, abs=1e-9), name


def test_the_noise_floor_is_the_training_split() -> None:
    reference = read("perov_like:test")
    training = training_of(reference)
    assert training is not None and training.name == "perov_like:train"
    assert list(drawn(training, 50, 0).ids) == list(drawn(training, 50, 0).ids)
    assert list(drawn(training, 50, 0).ids) != list(drawn(training, 50, 1).ids)
    assert len(drawn(training, 10**6, 0)) == len(training)
    assert len(paired(training, len(reference), 0)) == len(reference)
    assert training_of(named("a file", [perovskite(4.0)])) is None


def test_unknown_cutoffs() -> None:
    with pytest.raises(ConfigError, match="perov_5, carbon_24, mp_20"):
        Judge(Crew(), "perov_6", 0, "perov_5")


@pytest.mark.slow
@pytest.mark.parametrize("case", ["perov_gen_clean", "perov_gen_corrupted"])
def test_published_totals_of_generation(judge: Judge, tmp_path: Path, case: str) -> None:
    sides = [named(side, golden.crystals(case, side)) for side in ("pred", "gt")]
    found = scoring.generation(judge, *sides, stores(tmp_path)).metrics
    wanted = golden.expected(case)["metrics"]
    for name in found.keys() & wanted.keys():
        assert found[name] == pytest.approx(wanted[name], rel=1e-6), name
    assert len(found.keys() & wanted.keys()) == 11


@pytest.mark.slow
def test_published_totals_of_reconstruction(judge: Judge, tmp_path: Path) -> None:
    case = "perov_recon_0.1A"
    sides = [named(side, golden.crystals(case, side)) for side in ("pred", "gt")]
    found = scoring.reconstruction(judge, *sides, stores(tmp_path))
    wanted = golden.expected(case)["metrics"]
    for name in ("match_rate", "rms_dist", "comp_valid", "struct_valid", "valid"):
        assert found.metrics[name] == pytest.approx(wanted[name], rel=1e-6), name
    ignoring = [wanted[f"{name}_ignoring_validity"] for name in ("match_rate", "rms_dist")]
    ours = [found.metrics[f"{name}_ungated"] for name in ("match_rate", "rms_dist")]
    assert ours == pytest.approx(ignoring, rel=1e-6)
    pairs = golden.expected(case)["per_pair"]
    rmse = [row["rmse"] for row in found.table]
    assert np.allclose(rmse, [pair["rms"] for pair in pairs], rtol=1e-6)
