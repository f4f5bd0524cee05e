"""The pages that make crystals, and the library that keeps them, each along its main path."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import World
from streamlit.testing.v1 import AppTest
from test_pages import opened, settled, text, views

from app.components.starts import MANY, ONE
from app.services import interpolate, library, relaxing, reports
from app.services.jobs import Job
from cdvae_core.crystal import Crystal
from cdvae_core.errors import CdvaeError
from cdvae_core.structures import to_cif


@pytest.fixture(autouse=True)
def own_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDVAE_LIBRARY", str(tmp_path / "library.db"))


def click(at: AppTest, label: str) -> AppTest:
    [button] = [b for b in at.button if b.label == label]
    return settled(button.click().run())


def tables(at: AppTest) -> list[list[dict]]:
    return [table.value.to_dict("records") for table in at.dataframe]


def test_trajectories_from_one_latent_side_by_side(world: World) -> None:
    at = opened("views/trajectory.py")
    assert "Choose a crystal" in text(at)
    at.slider(key="starts").set_value(3)
    click(at, "Run")
    films = views(at)
    assert len(films) == 3
    assert all(len(film["frames"]) > 50 and film["strip"] for film in films)
    ends = [film["frames"][-1]["x"] for film in films]
    assert ends[0] != ends[1] != ends[2]
    assert {series["name"] for series in films[0]["series"]} >= {"Noise level σ", "Score norm"}
    keep_box = at.multiselect(key="keep-trajectory")
    keep_box.set_value([keep_box.options[2].split(":")[0]])
    settled(at.run())
    click(at, "Save")
    [kept] = library.entries()
    assert kept.title.endswith("start 3") and kept.provenance["settings"]["starts"] == 3
    again = reopened()
    assert again.slider(key="starts").value == 3
    labels = [b.proto.label for b in at.get("download_button")]
    assert labels == [f"Film {i}, {kind}" for i in (1, 2, 3) for kind in ("HTML", "extxyz")]


@pytest.mark.parametrize("way", ["Straight line", "Great circle", "Random walk"])
def test_a_way_is_decoded_stop_by_stop(world: World, way: str) -> None:
    at = opened("views/interpolate.py")
    at.session_state["way"] = way
    settled(at.run())
    if way == "Random walk":
        at.number_input(key="walk").set_value(4)
    else:
        at.number_input(key="between").set_value(3)
    click(at, "Walk")
    [table] = tables(at)
    assert len(table) == 5
    assert {"Formula", "Verdict", "Novel"} <= table[0].keys()
    assert not at.error


def test_an_optimisation_names_the_best_of_each_start(world: World) -> None:
    at = opened("views/optimise.py")
    at.number_input(key="steps-ascent").set_value(60)
    at.number_input(key="kept").set_value(3)
    click(at, "Optimise")
    assert "The best of each start" in [s.value for s in at.subheader]
    every = tables(at)[-1]
    assert [row["Name"].split(" from")[0] for row in every] == ["step 20", "step 40", "step 60"]
    guesses = [next(v for k, v in row.items() if k.startswith("Guess")) for row in every]
    assert guesses[-1] < guesses[0]  # what is minimised falls


def test_an_ascent_that_was_stopped_goes_on(world: World) -> None:
    at = opened("views/optimise.py")
    at.number_input(key="steps-ascent").set_value(50_000)
    at.number_input(key="kept").set_value(2)
    [button] = [b for b in at.button if b.label == "Optimise"]
    button.click().run()
    job, settings = at.session_state["job-optimise"]
    while len(job.items()) < 3:
        assert not job.wait(0.05), job.error
    job.stop()
    assert job.wait(10)
    settings["steps"] = job.items()[-1].step + 40  # so that the rest is short
    settled(at.run())
    [button] = [b for b in at.button if b.label.startswith("Go on from step")]
    settled(button.click().run())
    again, _ = at.session_state["job-optimise"]
    steps = [one.step for one in again.items() if hasattr(one, "predicted")]
    assert steps == sorted(set(steps)) and steps[-1] == settings["steps"]
    assert steps[: len(job.items())] == [one.step for one in job.items()]
    assert "The best of each start" in [s.value for s in at.subheader]


def test_an_ascent_in_the_flow(world: World) -> None:
    from cdvae_core.optimise import FLOW_STEPS
    from cdvae_core.prior import FILE, FlowPrior, save_prior

    save_prior(FlowPrior(16, 5, hidden=16, blocks=1), world.tiny)
    try:
        at = opened("views/optimise.py")
        assert at.session_state["how"] == "Ascent in the flow"  # where there is one
        assert at.number_input(key="steps-flow").value == FLOW_STEPS
        at.number_input(key="steps-flow").set_value(20)
        at.number_input(key="kept").set_value(2)
        click(at, "Optimise")
        _, settings = at.session_state["job-optimise"]
        assert settings["mode"] == "flow"
        every = tables(at)[-1]
        assert [row["Name"].split(" from")[0] for row in every] == ["step 10", "step 20"]
    finally:
        (world.tiny / FILE).unlink()


def test_guided_draws_have_a_best_in_each_series(world: World) -> None:
    from cdvae_core.prior import FILE, FlowPrior, save_prior

    save_prior(FlowPrior(16, 5, hidden=16, blocks=1), world.tiny)
    try:
        at = opened("views/optimise.py")
        at.session_state["how"] = "Guided draws"
        settled(at.run())
        at.slider(key="count-series").set_value(2)
        at.number_input(key="draws").set_value(3)
        click(at, "Optimise")
        every = tables(at)[-1]
        names = [f"draw {draw} from series {i}" for draw in (1, 2, 3) for i in (1, 2)]
        assert [row["Name"] for row in every] == names
        assert "Improved" not in [m.label for m in at.metric]  # on what?
    finally:
        (world.tiny / FILE).unlink()


def test_generated_crystals_are_kept_found_changed_removed_and_brought_back(world: World) -> None:
    at = opened("views/generate.py")
    at.number_input(key="count").set_value(3)
    at.number_input(key="seed").set_value(5)
    at.number_input(key="tries").set_value(2)
    click(at, "Generate")
    assert not at.error, at.error[0].value
    assert len(tables(at)[0]) == 3
    assert {m.label for m in at.metric} == {"Crystals", "Valid", "Unique", "Novel, of the unique"}
    assert relaxing.installed() or 'pip install "cdvae[stability]"' in text(at)
    assert relaxing.installed() == ("relax" in [button.key for button in at.button])
    at.multiselect(key="keep-generate").set_value(["sample 1", "sample 3"])
    settled(at.run())
    click(at, "Save")
    kept = library.entries()
    assert [entry.title for entry in kept] == ["sample 3 of seed 5", "sample 1 of seed 5"]
    assert kept[0].provenance["checkpoint"] == "tiny"
    assert kept[0].provenance["settings"]["seed"] == 5
    assert kept[0].provenance["settings"]["tries"] == 2
    assert kept[0].provenance["settings"]["exchange"] is True
    assert kept[0].z.shape == (16,)

    later = opened("views/library.py")  # another session, as after a restart
    assert [row["Title"] for row in tables(later)[0]] == [e.title for e in kept]
    later.text_input(key="search-library").set_value("tiny 3")
    settled(later.run())
    assert len(tables(later)[0]) == 1
    library.retag(kept[0].number, "mine", ["Nice", " b "])
    assert library.entries("nice")[0].title == "mine"
    gone = library.remove([kept[0].number])
    assert len(library.entries()) == 1
    library.restore(gone)
    assert library.entries()[0].tags == ("b", "nice")


@pytest.mark.parametrize("mode", ["ascent", "guided"])
def test_an_optimised_entry_opens_its_page_with_its_settings(world: World, mode: str) -> None:
    guided = mode == "guided"
    settings = {
        "direction": 1, "target": 0.0, "prior_weight": 0.5, "mode": mode, "kept": 4,
        "steps": 0 if guided else 123, "step_size": 0.0 if guided else 0.02, "seed": 9,
    }  # fmt: skip
    keep(world.split("test").crystal(0), "optimise", settings)
    at = reopened()
    assert [t.value for t in at.title] == ["Optimise"]
    assert at.session_state["goal"] == "Maximise" and at.number_input(key="seed").value == 9
    assert not at.toggle(key="exchange").value  # it was made before there was this
    if not guided:  # the tiny checkpoint has no flow, so guided draws are not offered
        assert at.number_input(key="steps-ascent").value == 123
        assert at.number_input(key="pull").value == 0.5


def test_a_way_in_the_library_opens_with_its_ends(world: World) -> None:
    split = world.split("test")
    settings = {
        "way": interpolate.RANDOM, "ends": ["here"],
        "where": [{"split": "test", "id": split.ids[1]}],
        "walk": 3, "length": 1.5, "schedule": "fast", "seed": 4,
    }  # fmt: skip
    keep(split.crystal(0), "interpolate", settings)
    at = reopened()
    assert at.number_input(key="walk").value == 3 and at.number_input(key="length").value == 1.5
    crystal = next(box for box in at.selectbox if box.label == "Crystal")
    assert crystal.value == 1


def test_a_way_from_a_file_and_an_entry_opens_with_both(world: World) -> None:
    crystal = world.split("test").crystal(0)
    library.save(crystal, title="kept", page="generate", z=np.zeros(16),
                 provenance={"checkpoint": "tiny"})  # fmt: skip
    [begun] = library.entries()
    settings = {
        "way": interpolate.LINE, "ends": ["file", "kept"],
        "where": [{"file": "<mine>.cif", "cif": to_cif(crystal)}, {"library": begun.key}],
        "between": 2, "schedule": "fast", "seed": 4,
    }  # fmt: skip
    keep(crystal, "interpolate", settings)
    library.restore(library.remove([begun.number]))  # another number, the same entry
    at = reopened("interpolate")
    assert "As it was: &lt;mine&gt;.cif" in text(at)
    assert next(box for box in at.selectbox if box.label == "Entry").value == begun.key
    assert not next(button for button in at.button if button.label == "Walk").disabled
    library.remove([e.number for e in library.entries() if e.key == begun.key])
    library.save(crystal, title="another", page="x", z=np.zeros(16),
                 provenance={"checkpoint": "tiny"})  # fmt: skip
    at = reopened("interpolate")
    assert next(box for box in at.selectbox if box.label == "Entry").value is None
    assert next(button for button in at.button if button.label == "Walk").disabled


def test_what_was_made_on_the_map_opens_there(world: World) -> None:
    split = world.split("test")
    for page, settings in (
        ("map", {"place": [1.0, 2.0], "schedule": "fast", "seed": 6}),
        ("reconstruction", {"crystal": split.ids[1], "schedule": "fast", "seed": 7}),
    ):
        keep(split.crystal(0), page, settings)
        at = reopened()
        assert at.number_input(key="seed").value == settings["seed"]
        if page == "map":
            assert "Decode here" in [button.label for button in at.button]
        else:
            assert split.ids[1] in text(at)


def test_an_ascent_from_one_crystal_opens_with_it(world: World) -> None:
    split = world.split("test")
    settings = {
        "direction": -1, "target": 0.0, "prior_weight": 0.0, "mode": "ascent", "kept": 4,
        "steps": 50, "step_size": 0.02, "labels": ["x"],
        "where": [{"split": "test", "id": split.ids[2]}],
    }  # fmt: skip
    keep(split.crystal(0), "optimise", settings)
    at = reopened()
    assert next(box for box in at.selectbox if box.label == "Crystal").value == 2


def save(at: AppTest, page: str, chosen: list[int]) -> library.Entry:
    """Keep crystals as a person does; the newest entry."""
    box = at.multiselect(key=f"keep-{page}")
    box.set_value([box.options[i].rsplit(":", 1)[0] for i in chosen])
    settled(at.run())
    [button] = [b for b in at.button if b.key == f"save-{page}"]
    settled(button.click().run())
    return library.entries()[0]


@pytest.mark.parametrize("many", [False, True])
def test_an_ascent_that_is_kept_opens_as_it_was_run(world: World, many: bool) -> None:
    at = opened("views/optimise.py")
    at.number_input(key="steps-ascent").set_value(60)
    at.number_input(key="kept").set_value(3)
    if many:
        at.session_state["begin"] = MANY
        settled(at.run())
        at.slider(key="count-starts").set_value(3)
    else:
        next(box for box in at.selectbox if box.label == "Crystal").set_value(2)
    click(at, "Optimise")
    save(at, "optimise", [0])
    again = reopened()
    assert again.number_input(key="steps-ascent").value == 60
    assert again.number_input(key="kept").value == 3
    assert again.session_state["begin"] == (MANY if many else ONE)
    if many:
        assert again.slider(key="count-starts").value == 3
    else:
        assert next(box for box in again.selectbox if box.label == "Crystal").value == 2


def test_wishes_that_are_kept_come_back(world: World) -> None:
    at = opened("views/generate.py")
    at.number_input(key="atoms-tiny").set_value(4)
    at.number_input(key="count").set_value(2)
    click(at, "Generate")
    save(at, "generate", [0])
    assert reopened().number_input(key="atoms-tiny").value == 4


def test_a_range_that_was_wished_for_comes_back(world: World) -> None:
    from cdvae_core.prior import FILE, FlowPrior, save_prior

    save_prior(FlowPrior(16, 5, hidden=16, blocks=1), world.tiny)
    try:
        at = opened("views/generate.py")
        assert at.number_input(key="wish-high-tiny").disabled
        settled(at.number_input(key="wish-tiny").set_value(2.0).run())
        at.number_input(key="wish-high-tiny").set_value(-1.0)
        at.number_input(key="count").set_value(2)
        click(at, "Generate")
        save(at, "generate", [0])
        again = reopened()
        assert again.number_input(key="wish-tiny").value == -1.0
        assert again.number_input(key="wish-high-tiny").value == 2.0
        settled(again.number_input(key="wish-high-tiny").set_value(-1.0).run())
        click(again, "Generate")
        save(again, "generate", [0])
        once_more = reopened()
        assert once_more.number_input(key="wish-tiny").value == -1.0
        assert once_more.number_input(key="wish-high-tiny").value is None  # one value, no range
    finally:
        (world.tiny / FILE).unlink()


def test_a_reconstruction_that_is_kept_opens_on_its_split(world: World) -> None:
    at = opened("views/latent_map.py")
    at.session_state[f"splits-{world.dataset}"] = ["val"]
    at.session_state["selected_crystal"] = world.split("val").ids[0]
    settled(at.run())
    click(at, "Reconstruct")
    entry = save(at, "reconstruction", [0])
    assert world.split("val").ids[0] in entry.title and entry.z.shape == (16,)
    again = reopened()
    assert again.session_state[f"splits-{world.dataset}"] == ["val"]
    assert world.split("val").ids[0] in text(again)


def test_what_is_kept_belongs_to_the_checkpoint_that_made_it(world: World) -> None:
    other = world.checkpoints / "other"
    shutil.copytree(world.tiny, other)
    try:
        at = opened("views/generate.py")
        at.number_input(key="count").set_value(2)
        at.selectbox(key="checkpoint").set_value("tiny")
        click(at, "Generate")
        settled(at.selectbox(key="checkpoint").set_value("other").run())
        assert "Made with tiny" in text(at)
        entry = save(at, "generate", [0])
        assert entry.provenance["checkpoint"] == "tiny"
        assert entry.provenance["settings"]["checkpoint"] == "tiny"
    finally:
        shutil.rmtree(other)


def test_each_removal_can_be_undone(world: World) -> None:
    import streamlit as st

    from app.components import library_panels

    for title in ("first", "second"):
        library.save(world.split("test").crystal(0), title=title, page="x", provenance={})
    second, first = library.entries()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(st, "session_state", {})
        library_panels._remove([first.number])
        library_panels._remove([second.number])
        assert library.entries() == []
        library_panels._undo()
        assert [entry.title for entry in library.entries()] == ["second"]
        library_panels._undo()
        assert {entry.title for entry in library.entries()} == {"first", "second"}


def reopened(page: str = "") -> AppTest:
    """The page of the newest entry (of a page), opened as its button does: no row can be marked."""
    import streamlit as st

    from app.components.restore import PAGES, reopen

    at = opened("views/library.py")
    entry = next(e for e in library.entries() if page in ("", e.page))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(st, "session_state", at.session_state)
        reopen(entry)
    return settled(at.switch_page(PAGES[entry.page]).run())


def keep(crystal: Crystal, page: str, settings: dict) -> None:
    """An entry as a page saves it."""
    library.save(crystal, title="x", page=page,
                 provenance={"checkpoint": "tiny", "settings": settings})  # fmt: skip


def test_an_empty_library_says_so(world: World) -> None:
    at = opened("views/library.py")
    assert "Nothing is kept yet" in text(at)


def test_a_broken_library_is_one_sentence(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.db").write_text("this is no database")
    monkeypatch.setenv("CDVAE_LIBRARY", str(tmp_path / "broken.db"))
    at = opened("views/library.py")
    assert len(at.error) == 1 and "cannot be used" in at.error[0].value


def report(name: str, **metrics: float) -> dict:
    return {
        "task": "generation", "name": name, "metrics": metrics, "counts": {"crystals": 10},
        "noise_floor": {"struct_valid": 1.0}, "floor_counts": {"crystals": 10}, "notes": [],
        "meta": {"cutoffs": "perov_5", "reference": "perov_5:test", "n": 10},
    }  # fmt: skip


def test_reports_stand_beside_the_paper(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, valid in (("first", 0.5), ("second", 0.75)):
        folder = tmp_path / "reports" / name
        folder.mkdir(parents=True)
        (folder / "report.json").write_text(json.dumps(report(name, struct_valid=valid)))
    (tmp_path / "reports" / "third").mkdir()
    (tmp_path / "reports" / "third" / "report.json").write_text("{")
    monkeypatch.setenv("CDVAE_REPORTS", str(tmp_path / "reports"))
    at = opened("views/compare.py")
    assert len(at.warning) == 1 and "report.json" in at.warning[0].value
    [row] = [row for row in tables(at)[0] if row["Figure"] == "Structure valid"]
    assert (row["first"], row["second"], row["noise floor"]) == ("50.00 %", "75.00 %", "100.00 %")
    assert row["CDVAE (paper)"] == "100.00 %"
    other = report("first", struct_valid=0.5)
    other["meta"]["reference"] = "perov_like:test"
    (tmp_path / "reports" / "first" / "report.json").write_text(json.dumps(other))
    at = opened("views/compare.py")
    at.selectbox(key="scale-generation").set_value(("perov_like:test", "perov_5"))
    settled(at.run())
    [row] = [row for row in tables(at)[0] if row["Figure"] == "Structure valid"]
    assert "CDVAE (paper)" not in row and "second" not in row  # those are of other data


def test_what_is_marked_to_be_kept_stays_the_same_crystal_when_others_are_sifted_out(
    world: World,
) -> None:
    at = opened("views/generate.py")
    at.number_input(key="count").set_value(8)
    click(at, "Generate")
    job, _ = at.session_state["job-generate"]
    items = job.items()
    unsound = items[0].verdict
    unsound = replace(unsound, structure_valid=False) if unsound else None
    items[0] = replace(items[0], verdict=unsound)
    job.items = lambda: items  # the first is sifted out, whatever the tiny model made
    chosen = next(one for one in reversed(items) if one.verdict and one.verdict.valid)
    at.multiselect(key="keep-generate").set_value([chosen.name])
    settled(at.run())
    at.session_state["sift"] = "Valid"
    settled(at.run())
    assert items[0].name not in [row["Name"] for row in tables(at)[0]]
    assert at.multiselect(key="keep-generate").value == [chosen.name]
    click(at, "Save")
    [entry] = library.entries()
    assert entry.title.startswith(chosen.name)
    assert np.allclose(entry.crystal.lattice, chosen.crystal.lattice)


def stopped(at: AppTest, label: str, page: str, patience: float) -> Job:
    """A job that was begun by a button and stopped once it had made something."""
    [button] = [b for b in at.button if b.label == label]
    button.click().run()
    job, _ = at.session_state[f"job-{page}"]
    while not job.items():
        assert not job.wait(0.1), job.error
    job.stop()
    assert job.wait(patience)
    settled(at.run())
    return job


def test_a_stopped_film_is_not_offered_to_be_kept(world: World) -> None:
    at = opened("views/trajectory.py")
    at.session_state["schedule"] = "paper"
    settled(at.run())
    stopped(at, "Run", "trajectory", 10)
    assert "stopped on its way" in text(at)
    assert not [box for box in at.multiselect if box.key == "keep-trajectory"]


@pytest.mark.parametrize(
    "changed",
    [
        {"metrics": {"comp_valid": "high"}}, {"metrics": {"rms_dist": 10**400}},
        {"counts": {"unheard of": 3}}, {"counts": [1]},
        {"meta": {"cutoffs": "nope", "reference": "x", "n": 1}}, {"meta": {"cutoffs": "perov_5"}},
        {"meta": {"cutoffs": "perov_5", "reference": 3, "n": 1}}, {"task": "cooking"},
        {"meta": {"cutoffs": "perov_5", "reference": "x", "n": "many"}}, {"noise_floor": None},
    ],
)  # fmt: skip
def test_a_report_that_cannot_be_shown_is_one_sentence(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict
) -> None:
    content = json.dumps(report("mine") | changed)
    with pytest.raises(CdvaeError, match=r"no report\.json"):
        reports.uploaded("mine.json", content.encode())
    (tmp_path / "report.json").write_text(content)
    monkeypatch.setenv("CDVAE_REPORTS", str(tmp_path))
    shown, wrong = reports.found()
    assert len(wrong) == 1 and all(one.report.name != "mine" for one in shown)


def test_a_stopped_job_keeps_what_it_has(world: World) -> None:
    at = opened("views/generate.py")
    at.number_input(key="count").set_value(400)
    job = stopped(at, "Generate", "generate", 5)
    assert "Stopped." in text(at)
    assert 0 < len(job.items()) < 400
    assert len(tables(at)[0]) == len(job.items())
