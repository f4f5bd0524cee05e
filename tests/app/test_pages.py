"""Every page runs, shows what it should, and answers bad input with one sentence."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from conftest import World
from streamlit.testing.v1 import AppTest

from app.services import reports
from app.services.chemistry import formula
from cdvae_core.checkpoint import is_baseline, read_config

MAIN = str(Path(__file__).parents[2] / "app" / "main.py")
MAP = "views/latent_map.py"


SHIPPED = sorted(
    file.parent for file in Path(MAIN).parents[1].glob("checkpoints/*/config.json")
)  # fmt: skip
WALKED = [folder for folder in SHIPPED if not is_baseline(read_config(folder))]


def opened(page: str | None = None, **parameters: str) -> AppTest:
    at = AppTest.from_file(MAIN, default_timeout=300)
    at.run()
    if page is not None:
        at.switch_page(page)
        for name, value in parameters.items():
            at.query_params[name] = value
        settled(at.run())
    return at


def settled(at: AppTest) -> AppTest:
    """Run until nothing is in progress any more; AppTest has no clock of its own."""
    for _ in range(600):
        assert not at.exception, at.exception
        if not at.get("progress"):
            return at
        time.sleep(0.3)
        at.run()
    raise AssertionError("the page did not settle")


def figure(at: AppTest) -> dict:
    [chart] = at.get("plotly_chart")
    return json.loads(chart.proto.spec)


def views(at: AppTest) -> list[dict]:
    """The data of every 3D view."""
    found = [json.loads(v.proto.json) for v in at.get("bidi_component")]
    return [data for data in found if "frames" in data]


def text(at: AppTest) -> str:
    return " ".join(str(e.proto.body) for e in at.get("html")) + " ".join(
        m.value for m in at.markdown
    )


def test_home_shows_the_checkpoint_its_card_and_its_crystals(world: World) -> None:
    at = opened()
    assert at.selectbox(key="checkpoint").value == "tiny"
    assert [t.value for t in at.title] == ["CDVAE"]
    assert "An untrained model for tests." in text(at)
    assert "data:image/png;base64," in text(at)
    assert len(views(at)) == 3
    assert world.dataset in text(at)
    assert not at.error


def test_the_gallery_leads_to_the_map(world: World) -> None:
    at = opened()
    button = next(b for b in at.button if b.label == "See it on the map")
    settled(button.click().run())
    assert [t.value for t in at.title] == ["Latent map"]
    assert len(views(at)) == 1


def test_the_map_has_every_crystal_and_no_selection_at_first(world: World) -> None:
    at = opened(MAP)
    assert not at.error
    points = [i for trace in figure(at)["data"] for i in _decoded(trace["customdata"]) if i >= 0]
    assert sorted(points) == list(range(len(world.split("test"))))
    assert "Click a point" in text(at)


def _decoded(array: list | dict) -> list[int]:
    """Plotly sends typed arrays as base64."""
    import base64

    import numpy as np

    if isinstance(array, list):
        return array
    return np.frombuffer(base64.b64decode(array["bdata"]), array["dtype"]).tolist()


def test_a_click_selects_and_is_kept_in_the_url(world: World) -> None:
    at = opened(MAP)
    name = world.split("test").ids[1]
    pick(at, [1])
    assert at.query_params["crystal"] in (name, [name])
    assert len(views(at)) == 1
    assert figure(at)["data"][-1]["name"] == "selected"
    assert [b.label for b in at.button if b.label == "Reconstruct"]


def pick(at: AppTest, points: list[int]) -> AppTest:
    """What the page does on a click or lasso; AppTest does not call `on_select` itself."""
    ids = figure_ids(at)
    if len(points) == 1:
        at.session_state["selected_crystal"] = ids[points[0]]
        at.session_state["selected_group"] = ()
    else:
        at.session_state["selected_crystal"] = ids[points[0]]
        at.session_state["selected_group"] = tuple(ids[i] for i in points)
    return settled(at.run())


def figure_ids(at: AppTest) -> list[str]:
    from cdvae_core.data.cache import open_split

    return open_split("toy_perovskites", "test").ids


def test_a_link_opens_the_same_crystal(world: World) -> None:
    name = world.split("test").ids[2]
    at = opened(MAP, crystal=name)
    assert name in text(at)
    assert len(views(at)) == 1


def test_a_link_to_an_unknown_crystal_is_no_trouble(world: World) -> None:
    at = opened(MAP, crystal="<script>alert(1)</script>")
    assert "Click a point" in text(at)
    assert not at.error


def test_a_lasso_shows_pictures_and_a_table(world: World) -> None:
    at = pick(opened(MAP), [0, 2, 3])
    assert len(views(at)) == 3
    assert len(at.dataframe[0].value) == 3
    assert any(trace.get("selectedpoints") is not None for trace in figure(at)["data"])
    assert not [b for b in at.button if b.label == "Reconstruct"]


@pytest.mark.parametrize("by", ["energy_guess", "Elements", "Number of elements", "Density"])
def test_colours(by: str, world: World) -> None:
    at = opened(MAP)
    settled(at.selectbox(key="colour").set_value(by).run())
    assert not at.error
    assert figure(at)["data"]


def test_the_map_shows_what_has_a_part_of_a_formula(world: World) -> None:
    at = opened(MAP)
    split = world.split("test")
    names = [formula(split.crystal(i).atomic_numbers) for i in range(len(split))]
    part = names[0][:3].lower()
    expected = sum(part in name.lower() for name in names)
    settled(at.text_input(key="filter-formula").set_value(part).run())
    assert 0 < expected < len(split)
    assert f"{expected} of {len(split)} shown" in text(at)


def test_search(world: World) -> None:
    at = opened(MAP)
    name = world.split("test").ids[3]
    settled(at.text_input(key="find").set_value(name).run())
    assert name in text(at)
    settled(at.text_input(key="find").set_value("XeF6").run())
    [warning] = at.warning
    assert warning.value == "No crystal of the splits shown has that formula or id."


def test_reconstruct_compare_and_download(world: World) -> None:
    at = pick(opened(MAP), [1])
    [button] = [b for b in at.button if b.label == "Reconstruct"]
    settled(button.click().run())
    assert [h.value for h in at.subheader] == ["Original and reconstruction"]
    player = next(v for v in views(at) if v["series"])
    assert [s["name"] for s in player["series"]] == [
        "Noise level σ", "Score norm", "Shortest distance",
    ]  # fmt: skip
    assert len(player["frames"]) == player["total"] == len(player["series"][0]["values"])
    assert not player["live"]
    labels = [d.proto.label for d in at.get("download_button")]
    assert labels == ["Reconstruction, CIF", "Original, CIF", "Trajectory, extxyz"]
    assert [b for b in at.button if b.label == "Reconstruct again"]


def test_a_run_can_be_stopped(world: World) -> None:
    at = pick(opened(MAP), [0])
    at.selectbox(key="schedule").set_value("paper").run()
    [button] = [b for b in at.button if b.label == "Reconstruct"]
    button.click().run()
    [stop] = [b for b in at.button if b.label == "Stop"]
    settled(stop.click().run())
    assert "The run was stopped" in text(at)


def test_no_checkpoint_and_damaged_checkpoint(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CDVAE_CHECKPOINTS", str(tmp_path))
    at = AppTest.from_file(MAIN, default_timeout=300).run()
    assert not at.exception
    assert len(at.error) == 1 and "no trained checkpoint" in at.error[0].value
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "config.json").write_text("{")
    at = AppTest.from_file(MAIN, default_timeout=300).run()
    assert not at.exception
    assert len(at.error) == 1 and "damaged" in at.error[0].value


def test_a_truncated_model_is_one_sentence(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    shutil.copytree(world.tiny, tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    monkeypatch.setenv("CDVAE_CHECKPOINTS", str(tmp_path))
    at = opened(MAP)
    assert len(at.error) == 1
    assert "damaged or truncated" in at.error[0].value
    assert "\n" not in at.error[0].value


def test_a_missing_dataset_is_one_sentence(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CDVAE_DATA", str(tmp_path / "empty"))
    monkeypatch.setattr("cdvae_core.data.cache.embedded_folder", lambda: tmp_path)
    at = opened(MAP)
    assert not at.exception
    assert len(at.error) == 1 and "cdvae data build" in at.error[0].value


@pytest.mark.parametrize("folder", WALKED, ids=lambda p: p.name)
def test_shipped_checkpoints_open_with_their_cards(
    folder: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CDVAE_CHECKPOINTS", str(folder))
    at = opened()
    assert at.selectbox(key="checkpoint").value == folder.name
    assert "no card.md" not in text(at)
    assert not at.exception


@pytest.mark.parametrize("folder", [f for f in SHIPPED if f not in WALKED], ids=lambda p: p.name)
def test_a_baseline_is_compared_and_not_walked_in(
    folder: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CDVAE_CHECKPOINTS", os.pathsep.join([str(folder), str(world.tiny)]))
    assert folder.name in {one.title for one in reports.found()[0]}
    at = opened(checkpoint=folder.name)  # a link to it opens the first that has latents
    assert at.selectbox(key="checkpoint").value == world.tiny.name
    assert not at.exception
