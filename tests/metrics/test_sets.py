"""Sets of crystals: coverage, distributions, success rates, and who equals whom."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from golden import crystals, expected, fingerprints

from cdvae_core.crystal import Crystal
from cdvae_core.errors import ConfigError
from cdvae_core.metrics import diversity, optimisation
from cdvae_core.metrics.coverage import CUTOFFS, Cutoffs, coverage
from cdvae_core.metrics.distributions import SAMPLE, draw_valid, earth_movers, symmetry
from cdvae_core.metrics.fingerprints import scaled
from cdvae_core.metrics.measure import Measurement
from cdvae_core.metrics.reconstruction import STOL, Reconstruction, exchanged

PLAIN = replace(Measurement.of_no_crystal([11, 17], ""), struct_valid=True, failures={})


def at(structure: float, composition: float = 0.0, **others: object) -> Measurement:
    """A measurement with fingerprints on a line."""
    place = np.zeros(132)
    place[0] = composition * 16.35781741152948
    return replace(
        PLAIN, structure_fingerprint=np.array([structure, 0.0]), composition_fingerprint=place,
        **others,
    )  # fmt: skip


def of_golden(case: str, side: str) -> list[Measurement]:
    wanted, known = expected(case)["per_structure"][side], fingerprints(case)
    return [
        replace(
            PLAIN,
            density=one["density"],
            num_elements=one["n_elem"],
            comp_valid=one["comp_valid"],
            struct_valid=one["struct_valid"],
            structure_fingerprint=known[f"{side}_struct"][i] if one["has_fingerprint"] else None,
            composition_fingerprint=known[f"{side}_comp"][i],
        )
        for i, one in enumerate(wanted)
    ]


@pytest.mark.parametrize("case", ["perov_gen_clean", "perov_gen_corrupted"])
def test_published_coverage_and_distances(case: str) -> None:
    generated, reference = of_golden(case, "pred"), of_golden(case, "gt")
    found = coverage(generated, reference, CUTOFFS["perov_5"])
    totals, distances = expected(case)["metrics"], expected(case)["coverage_distances"]
    for name, value in found.metrics().items():
        assert value == pytest.approx(totals[name], rel=1e-6), name
    for ours, theirs in (
        (found.structure_recall, "struc_recall_dist"),
        (found.structure_precision, "struc_precision_dist"),
        (found.composition_recall, "comp_recall_dist"),
        (found.composition_precision, "comp_precision_dist"),
    ):
        assert np.allclose(ours, distances[theirs], rtol=1e-6, atol=1e-12)
    sample = [generated[i] for i in draw_valid(generated, seed=0)]
    assert len(sample) == totals["n_valid_used_for_emd"]
    for name, value in earth_movers(sample, reference).items():
        assert value == pytest.approx(totals[name], rel=1e-6), name


def test_coverage_by_hand() -> None:
    """On a line, at 0, 1, 2 and 0.1; the last composition is far from all."""
    reference = [at(0), at(1), at(2, 9)]
    generated = [at(0.1), at(5), at(1, 9), replace(at(0), structure_fingerprint=None)]
    found = coverage(generated, reference, Cutoffs(0.2, 0.5)).metrics()
    assert found["cov_recall"] == pytest.approx(2 / 3)  # the third structure has none within 0.2
    # the third is near the second in structure and the third in composition: that is the rule
    assert found["cov_precision"] == pytest.approx(2 / 4)
    assert found["amsd_recall"] == pytest.approx((0.1 + 0 + 1) / 3)
    assert found["amsd_precision"] == pytest.approx((0.1 + 3 + 0) / 3)


def test_coverage_of_nothing_usable() -> None:
    nothing = [replace(at(0), structure_fingerprint=None)]
    found = coverage(nothing, [at(0)], Cutoffs(1, 1)).metrics()
    assert found["cov_recall"] == found["cov_precision"] == 0
    assert np.isnan(found["amsd_recall"])


def test_blocks_of_the_distance_matrix_agree_with_the_whole() -> None:
    rng = np.random.default_rng(0)
    generated = [at(*xy) for xy in rng.normal(size=(1500, 2))]
    reference = [at(*xy) for xy in rng.normal(size=(70, 2))]
    found = coverage(generated, reference, Cutoffs(1, 1))
    places = np.array([one.structure_fingerprint[0] for one in generated])
    wanted = np.abs(places - reference[3].structure_fingerprint[0]).min()
    assert found.structure_recall[3] == pytest.approx(wanted)


def test_missing_features_are_the_mean() -> None:
    assert (scaled(np.full((2, 132), np.nan)) == 0).all()


def test_the_sample_is_seeded_and_falls_back_to_all_valid() -> None:
    many = [at(0, comp_valid=bool(i % 3)) for i in range(2000)]
    one, again, other = (draw_valid(many, seed) for seed in (0, 0, 1))
    assert one == again != other and len(set(one)) == SAMPLE
    assert all(many[i].valid for i in one)
    assert draw_valid(many[:10], 0) == [i for i in range(10) if i % 3]
    assert draw_valid([], 0) == []


def test_space_groups() -> None:
    ours = [at(0, spacegroup=n) for n in (1, 1, 225, 221)]
    theirs = [at(0, spacegroup=n) for n in (225, 225, 221, 1)]
    found = symmetry(ours, theirs)
    assert found["p1_share"] == 0.5 and found["p1_share_reference"] == 0.25
    assert found["spacegroup_distance"] == pytest.approx(0.25)


def test_gated_and_ungated_matches() -> None:
    rmse = np.array([[0.1, 0.3], [np.nan, 0.2], [np.nan, np.nan]])
    valid = np.array([[False, True], [True, False], [True, True]])
    found = Reconstruction(rmse, valid).metrics()
    assert found["match_rate"] == pytest.approx(1 / 3) and found["rms_dist"] == pytest.approx(0.3)
    assert found["match_rate_ungated"] == pytest.approx(2 / 3)
    assert found["rms_dist_ungated"] == pytest.approx(0.15)
    assert found["crmse"] == pytest.approx((0.1 + 0.2 + STOL) / 3)


def test_success_rates_by_hand() -> None:
    """Two starts, three steps: the first start's best is not valid, the second's is the last."""
    prop = np.array([0.9, 0.9, 0.1, 0.8, 0.65, 0.3])
    valid = np.array([True, True, False, True, True, True])
    found = optimisation.success_rates(prop, valid, 2, (0.4, 0.6, 0.7))
    assert found == {"SR5": 0.5, "SR10": 0.5, "SR15": 1.0}
    with pytest.raises(ConfigError, match="whole number of steps"):
        optimisation.success_rates(prop, valid, 4, (0.4, 0.6, 0.7))


def test_thresholds_are_percentiles_of_what_is_known() -> None:
    values = np.append(np.arange(101.0), np.nan)
    assert optimisation.thresholds_of(values) == (5.0, 10.0, 15.0)


def perovskite(a: float, shift: float = 0.0, b: int = 22) -> Crystal:
    coords = [[0, 0, 0], [0.5, 0.5, 0.5 + shift], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return Crystal(np.array([56, b, 8, 8, 8]), np.array(coords), a * np.eye(3))


def test_who_equals_whom() -> None:
    """A larger one is the same, one with A and B exchanged is not, one slightly displaced is."""
    exchanged = Crystal(np.array([22, 56, 8, 8, 8]), perovskite(4.0).frac_coords, 4.0 * np.eye(3))
    given = [perovskite(4.0), perovskite(4.3), exchanged, perovskite(4.0, 0.01)]
    distances = diversity.average_minimum_distances(given)
    assert np.allclose(distances[0], distances[1])  # size does not count, as for the matcher
    assert diversity.first_of_each(given, distances) == [0, 2]
    assert diversity.equals_any(given[3], [given[2], given[0]])
    assert not diversity.equals_any(given[2], [given[0]])


def test_candidates_are_all_or_the_nearest() -> None:
    others = [perovskite(4.0, 0.01 * i) for i in range(diversity.NEAREST + 5)]
    few = diversity.candidates([perovskite(4.2, 0.07)], others)[0]
    assert few[0] is others[7] and len(few) == diversity.NEAREST
    assert diversity.candidates([others[3]], others[:4]) == [others[:4]]


def test_average_minimum_distances_do_not_depend_on_the_cell() -> None:
    one = perovskite(4.0, 0.1)
    double = Crystal(
        np.tile(one.atomic_numbers, 2),
        np.concatenate([one.frac_coords, one.frac_coords + np.array([0, 0, 1])]) * [1, 1, 0.5],
        one.lattice * [[1], [1], [2]],
    )
    found = diversity.average_minimum_distances([one, double])
    assert np.allclose(found[0], found[1], atol=1e-5)


def test_the_published_reconstruction() -> None:
    """All 200 pairs in one go is for the slow tests; the flags of every tenth are here."""
    from cdvae_core.metrics.reconstruction import match

    case = "perov_recon_0.1A"
    pairs = expected(case)["per_pair"]
    for i in range(0, len(pairs), 10):
        found = match(crystals(case, "pred")[i], crystals(case, "gt")[i])
        assert np.isfinite(found) == pairs[i]["matched_ignoring_validity"]
        assert found == pytest.approx(pairs[i]["rms"], rel=1e-6)


def test_exchanged_elements_are_told_from_other_misses() -> None:
    sites = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    heap = np.array([[0, 0, 0], [0.3, 0, 0], [0.6, 0, 0], [0, 0.3, 0], [0, 0.6, 0]])

    def made(numbers: list[int], places: np.ndarray) -> Crystal:
        return Crystal(np.array(numbers), places, 3.9 * np.eye(3))

    true = made([38, 22, 8, 8, 8], sites)
    assert exchanged(made([8, 38, 22, 8, 8], sites), true)  # all three
    # O on the site of Sr is a match to this matcher, with an RMSE near its limit
    assert not exchanged(made([8, 22, 38, 8, 8], sites), true)
    assert exchanged(made([22, 38, 8, 8, 8], sites + 0.25), true)  # A and B, from elsewhere
    assert not exchanged(true, true)
    assert not exchanged(made([38, 40, 8, 8, 8], sites), true)  # another element
    assert not exchanged(made([38, 22, 8, 8, 8], heap), true)  # other sites
