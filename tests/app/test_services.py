"""The plain functions behind the pages, on real data and a real if untrained model."""

from __future__ import annotations

import io
import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import World

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))
from examples import made_split, prototypes

from app.services import checkpoints, colouring, datasets, export, latent_map, reconstruct
from app.services.chemistry import density, formula, pretty
from app.services.facts import crystal_facts, crystal_system
from app.services.jobs import Job
from cdvae_core import CDVAE
from cdvae_core.crystal import Crystal
from cdvae_core.errors import CheckpointError, DatasetError


def strontium_titanate() -> Crystal:
    sites = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    return Crystal.from_parameters([3.905] * 3, [90.0] * 3, sites, [38, 22, 8, 8, 8])


@pytest.fixture(scope="module")
def drawn_map(world: World) -> latent_map.LatentMap:
    job = map_job(world)
    assert job.wait(300), "the map was not done in five minutes"
    assert job.status == "done", job.error
    return job.result


def map_job(world: World) -> Job:
    model = CDVAE.load(world.tiny)
    splits = {"train": world.split("train"), "test": world.split("test")}
    units = {"energy_guess": "eV/atom"}
    return Job(lambda job: latent_map.build_map(job, model, world.tiny, splits, units))


def finish(job: Job) -> Job:
    assert job.wait(300), "the job was not done in five minutes"
    return job


def test_formulas_are_written_as_chemists_do() -> None:
    assert formula(np.array([8, 22, 38, 8, 8])) == "SrTiO3"
    assert formula(np.array([17, 11, 17, 11])) == "NaCl"
    assert formula(np.array([6, 6])) == "C"
    assert pretty("SrTiO3") == "SrTiO₃"


def test_facts_of_strontium_titanate() -> None:
    facts = crystal_facts(strontium_titanate())
    assert facts.space_group == "Pm-3m (221)"
    assert crystal_system(strontium_titanate()) == "cubic"
    assert facts.density == pytest.approx(5.117, abs=0.01)  # g/cm3
    assert facts.shortest == pytest.approx(3.905 / 2)
    assert facts.lengths == pytest.approx((3.905,) * 3)
    assert density(np.array([26, 26]), 2.866**3) == pytest.approx(7.87, abs=0.02)


def test_checkpoints_are_found_and_described(world: World) -> None:
    assert checkpoints.checkpoint_folders()["tiny"] == world.tiny
    info = checkpoints.describe(world.tiny)
    assert (info.name, info.dataset, info.prop, info.max_atoms) == (
        "tiny", world.dataset, "energy_guess", 5,
    )  # fmt: skip


def test_a_checkpoint_folder_itself_can_be_named(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CDVAE_CHECKPOINTS", str(world.tiny))
    assert checkpoints.checkpoint_folders()["tiny"] == world.tiny


def test_only_what_has_latents_is_walked_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, config in {"ours": {"format": 2}, "theirs": {"format": 2, "system": "ftcp"}}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    monkeypatch.setenv("CDVAE_CHECKPOINTS", str(tmp_path))
    assert {"ours", "theirs"} <= checkpoints.checkpoint_folders().keys()
    assert "ours" in checkpoints.cdvae_folders() and "theirs" not in checkpoints.cdvae_folders()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": 99}', '{"format": 2}', '{"format": 2, "model": 3}']
)
def test_a_damaged_checkpoint_is_one_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError) as caught:
        checkpoints.describe(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_card_holds_its_own_pictures_and_no_others(world: World) -> None:
    text = checkpoints.card(world.tiny)
    assert "![loss curve](data:image/png;base64," in text
    assert "secret" not in text
    assert text.count("base64") == 1
    assert checkpoints.card(world.checkpoints) == ""


def test_dataset_facts_and_gallery(world: World) -> None:
    facts = datasets.dataset_facts(world.dataset)
    assert sum(facts.sizes.values()) == 48
    assert facts.atoms == (5, 5)
    assert facts.prop == "energy_guess"
    assert facts.spread is not None and facts.spread[0] < facts.spread[1] < facts.spread[2]
    assert world.dataset in datasets.ready_datasets()
    shown = datasets.gallery(world.split(), 3)
    assert len(shown) == 3
    assert shown == datasets.gallery(world.split(), 3) or [s[0] for s in shown] == [
        s[0] for s in datasets.gallery(world.split(), 3)
    ]
    with pytest.raises(DatasetError, match="cdvae data"):
        datasets.dataset_facts("carbon_24")


def test_the_gallery_is_full_where_all_crystals_have_the_same_elements() -> None:
    diamond, cubic = (prototypes()[name] for name in ("diamond", "diamond cubic"))
    shown = datasets.gallery(made_split([diamond, cubic, diamond, cubic]), 3)
    assert len({name for name, _ in shown}) == 3


def test_the_map_knows_its_crystals(world: World, drawn_map: latent_map.LatentMap) -> None:
    train, test = world.split("train"), world.split("test")
    assert len(drawn_map) == len(train) + len(test) == len(drawn_map.latents)
    point = len(train) + 1
    assert drawn_map.ids[point] == test.ids[1]
    assert drawn_map.index_of[test.ids[1]] == point
    assert drawn_map.split_names[point] == "test"
    crystal = drawn_map.crystal(point)
    assert np.array_equal(crystal.atomic_numbers, test.crystal(1).atomic_numbers)
    assert drawn_map.density[point] == pytest.approx(
        density(crystal.atomic_numbers, crystal.volume), rel=1e-4
    )
    assert drawn_map.num_elements[point] == len(set(crystal.atomic_numbers.tolist()))
    with pytest.raises(IndexError):
        drawn_map.locate(len(drawn_map))


def test_a_second_map_encodes_nothing(
    world: World, drawn_map: latent_map.LatentMap, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("it was encoded again")

    monkeypatch.setattr("cdvae_core.encode.encode_split", refuse)
    job = finish(map_job(world))
    assert job.status == "done", job.error
    assert np.array_equal(job.result.places, drawn_map.places)


def test_finding_by_id_and_by_formula(drawn_map: latent_map.LatentMap) -> None:
    name = drawn_map.formulas[5]
    assert latent_map.find(drawn_map, drawn_map.ids[7]) == 7
    found = latent_map.find(drawn_map, name)
    assert found is not None and drawn_map.formulas[found] == name
    assert latent_map.find(drawn_map, "O3TiSr") == latent_map.find(drawn_map, "SrTiO3")
    assert latent_map.find(drawn_map, "SrTiO₃") == latent_map.find(drawn_map, "SrTiO3")
    assert latent_map.find(drawn_map, "srtio3") == latent_map.find(drawn_map, "SrTiO3")
    assert latent_map.find(drawn_map, "SRTIO3") == latent_map.find(drawn_map, "SrTiO3")
    for nothing in ("XeF6", "Foo", "", "Sr0", "😀", "SrTiO3 "):
        assert latent_map.find(drawn_map, nothing) is None


def test_what_a_formula_without_capitals_may_mean() -> None:
    assert latent_map.readings("CaTiO3") == [{"Ca": 1, "Ti": 1, "O": 3}]
    assert latent_map.readings("CO") == [{"C": 1, "O": 1}]
    assert latent_map.readings("co") == [{"Co": 1}, {"C": 1, "O": 1}]
    assert {"Ca": 1, "Ti": 1, "O": 3} in latent_map.readings("catio3")
    assert latent_map.readings("fe2o2fe") == [{"Fe": 3, "O": 2}]
    assert len(latent_map.readings("cs" * 7)) < 100  # each is looked for in all crystals
    for nothing in ("", "3", "x", "Na0", "c" * 40, "cs" * 12):
        assert latent_map.readings(nothing) == []


def test_neighbours_leave_the_crystal_itself_out(drawn_map: latent_map.LatentMap) -> None:
    near = latent_map.neighbours(drawn_map, 3, 4)
    assert len(near) == 4
    assert 3 not in [i for i, _ in near]
    assert [d for _, d in near] == sorted(d for _, d in near)


def test_every_colouring_colours_every_point(drawn_map: latent_map.LatentMap) -> None:
    options = colouring.choices(drawn_map)
    assert options[0] == "energy_guess" and {colouring.SPLIT, colouring.GUESS} <= set(options)
    systems = np.array([crystal_system(drawn_map.crystal(i)) for i in range(len(drawn_map))])
    for by in options:
        made = colouring.colouring(drawn_map, by, ("N", "Ti"), systems, "energy_guess")
        points = made.values if made.values is not None else made.classes
        assert len(points) == len(drawn_map)
    made = colouring.colouring(drawn_map, colouring.ELEMENTS, ("N", "Ti"))
    for point, place in enumerate(made.classes):
        here = drawn_map.formulas[point]
        expected = 0 if "N" in here.replace("Nb", "") else 1 if "Ti" in here else -1
        assert place == expected, here


def test_reconstruction_runs_to_its_end(world: World) -> None:
    split, model = world.split(), CDVAE.load(world.tiny)
    job = finish(reconstruct.start(model, split, 2, "fast", 7))
    assert job.status == "done", job.error
    frames = job.items()
    assert frames[-1].index == frames[-1].total - 1
    assert len(frames) == reconstruct.kept(frames[-1].total) <= reconstruct.MAX_FRAMES
    assert job.result.complete
    assert frames[0].sigma > frames[-1].sigma
    again = finish(reconstruct.start(model, split, 2, "fast", 7)).items()
    assert np.array_equal(again[-1].crystal.frac_coords, frames[-1].crystal.frac_coords)

    from ase.io import read

    images = read(io.StringIO(export.trajectory_extxyz(frames)), index=":", format="extxyz")
    assert len(images) == len(frames)
    assert images[-1].info["sigma"] == pytest.approx(frames[-1].sigma)


def test_reconstruction_stops_within_a_second(world: World) -> None:
    job = reconstruct.start(CDVAE.load(world.tiny), world.split(), 0, "paper", 0)
    while not job.items() and job.running:
        time.sleep(0.02)
    job.stop()
    assert job.wait(20)
    assert job.status == "stopped", job.error
    assert not job.result.complete
    assert len(job.items()) < reconstruct.MAX_FRAMES


@pytest.mark.parametrize("total", [1, 2, 125, 160, 161, 5000])
def test_thinning_keeps_the_last_step(total: int) -> None:
    steps = [i for i in range(total) if i % reconstruct.stride(total) == 0 or i == total - 1]
    assert len(steps) == reconstruct.kept(total) <= reconstruct.MAX_FRAMES


def test_comparison_measures_what_was_moved() -> None:
    original = strontium_titanate()
    moved = original.frac_coords.copy()
    moved[0] += [0.02, 0, 0]
    shifted = Crystal(original.atomic_numbers, moved + 0.31, original.lattice)
    outcome = reconstruct.compare(original, shifted, True)
    length = (original.volume / 5) ** (1 / 3)
    assert outcome.normalised == pytest.approx(outcome.rms / length)
    assert 0.01 < outcome.rms < 0.08
    distance = outcome.result.frac_coords[:, None] - original.frac_coords[None]
    distance -= np.round(distance)
    assert np.linalg.norm(distance, axis=-1).min(0).max() < 0.03  # laid over the original
    other = Crystal(np.array([38, 22, 8, 8, 7]), original.frac_coords, original.lattice)
    assert reconstruct.compare(original, other, True).rms is None


def test_a_crystal_too_large_for_the_checkpoint_is_one_sentence(
    world: World, tmp_path: Path
) -> None:
    folder = tmp_path / "small"
    shutil.copytree(world.tiny, folder)
    model = CDVAE.load(folder)
    config = json.loads((folder / "config.json").read_text())
    object.__setattr__(model.config, "max_atoms", 4)
    assert config["model"]["max_atoms"] == 5
    job = finish(reconstruct.start(model, world.split(), 0, "fast", 0))
    assert (job.status, job.error) == (
        "failed", "this crystal has 5 atoms, but the checkpoint was made for up to 4",
    )  # fmt: skip


def test_unexpected_trouble_reaches_the_page() -> None:
    job = finish(Job(lambda _: 1 // 0))
    assert job.status == "failed"
    assert "ZeroDivisionError" in job.error


def test_file_names_are_safe() -> None:
    assert export.file_name("../a b/c", "result") == ".._a_b_c-result"


def test_a_shipped_map_is_used_and_never_that_of_other_weights(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cdvae_core.latent import project, read_latents, ship

    folder, split = tmp_path / "shipped", world.split("train")
    shutil.copytree(world.tiny, folder)
    ship(folder, split)
    monkeypatch.setenv("CDVAE_DATA", str(tmp_path / "empty"))
    latents = read_latents(folder, split)
    assert latents is not None and len(latents) == len(split)
    monkeypatch.setattr("cdvae_core.latent._umap", None)  # nothing is laid out again
    assert project(latents, shipped=folder).shape == (len(split), 2)
    assert not (tmp_path / "empty").exists()
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert read_latents(folder, split) is None
    ship_again = sorted(p.name for p in (folder / "map").glob("*/*"))
    assert len(ship_again) == 2
