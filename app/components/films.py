"""The films of several runs, side by side, and how to take them home."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import streamlit as st

from app.components.crystal_facts import crystal_title
from app.components.crystal_viewer import Series, film_data, trajectory_player
from app.services import export
from app.services.chemistry import formula
from app.services.decoding import Candidate
from app.services.film import film
from app.services.jobs import Job
from app.services.reconstruct import Frame, kept
from app.services.trajectory import Ending, Moment

_HELP = {
    "sigma": "How much noise the current level adds, as a length.",
    "score": "RMS over the atoms of the decoder's raw output: how far it wants to move an atom, in "
    "units of the noise. It should fall below 1 as the crystal settles.",
    "shortest": "Between any two atoms, periodic images included. Below 0.5 Å (dashed) a crystal "
    "counts as invalid.",
    "judged": "By an independent network, on a few of the frames: of a half-made crystal it is no "
    "more than a guess.",
}


def frame_series(frames: Sequence[Frame]) -> list[Series]:
    """The charts that every run has."""
    return [
        Series("Noise level σ", "Å", [f.sigma for f in frames], log=True, help=_HELP["sigma"]),
        Series("Score norm", "σ", [f.score_norm for f in frames], log=True, help=_HELP["score"]),
        Series("Shortest distance", "Å", [f.shortest for f in frames], guide=0.5,
               help=_HELP["shortest"]),
    ]  # fmt: skip


def captions_of(frames: Sequence[Frame]) -> list[str]:
    """Which step each frame is."""
    return [f"step {f.index + 1:,} of {f.total:,}" for f in frames]


def series_of(moments: list[Moment], run: int) -> list[Series]:
    """The charts beside one film."""
    found = frame_series([moment.frames[run] for moment in moments])
    props = [moment.props[run] for moment in moments]
    if any(value is not None for value in props):
        found.append(Series("Independent energy", "eV/atom", props, help=_HELP["judged"]))
    return found


def films(job: Job, settings: dict[str, Any]) -> None:
    """One player for each run, two in a row, with what came of it."""
    moments: list[Moment] = job.items()
    if not moments:
        return
    count, total = len(moments[-1].frames), moments[-1].frames[0].total
    ending = job.result if isinstance(job.result, Ending) else None
    for first in range(0, count, 2):
        columns = st.columns(min(2, count), gap="medium")
        for run in range(first, min(first + 2, count)):
            with columns[run - first]:
                end = moments[-1].frames[run].crystal
                crystal_title(
                    formula(end.atomic_numbers), _word(ending, run, job.status == "stopped")
                )
                trajectory_player(
                    [m.frames[run].drawn for m in moments], key=f"film-{run}",
                    view=f"{id(job)}-{run}", label=f"Langevin trajectory, start {run + 1}",
                    captions=captions_of([m.frames[run] for m in moments]),
                    series=series_of(moments, run), total=kept(total), live=job.running, height=300,
                )  # fmt: skip


def _word(ending: Ending | None, run: int, stopped: bool) -> str:
    if ending is None and stopped:
        return f"start {run + 1}, stopped on its way"
    if ending is None or ending.original is None:
        return f"start {run + 1}"
    rmse = ending.rmse[run]
    return f"start {run + 1}, " + (
        "no match with the original" if rmse is None else f"matches, RMSE {rmse:.4f}"
    )


def endings(job: Job, settings: dict[str, Any]) -> list[Candidate]:
    """The last crystal of each run, to be kept; none of a run that was stopped on its way."""
    moments: list[Moment] = job.items() if isinstance(job.result, Ending) else []
    frames = moments[-1].frames if moments else []
    return [
        Candidate(f"{settings['of']}, start {run}", settings["z"], frame.crystal)
        for run, frame in enumerate(frames, 1)
    ]


def film_export(job: Job, settings: dict[str, Any]) -> None:
    """Each run as one HTML file that plays anywhere, and as extxyz."""
    moments: list[Moment] = job.items()
    if not moments:
        return
    with st.container(horizontal=True):
        for run in range(len(moments[-1].frames)):
            name = f"{export.file_name(settings['of'])}-{run + 1}"
            st.download_button(
                f"Film {run + 1}, HTML", partial(_film, moments, run, settings),
                file_name=f"{name}.html", mime="text/html", on_click="ignore",
                icon=":material/movie:", key=f"html-{run}",
            )  # fmt: skip
            st.download_button(
                f"Film {run + 1}, extxyz",
                partial(export.trajectory_extxyz, [moment.frames[run] for moment in moments]),
                file_name=f"{name}.extxyz", mime="text/plain", on_click="ignore",
                icon=":material/download:", key=f"extxyz-{run}",
            )  # fmt: skip


def _film(moments: list[Moment], run: int, settings: dict[str, Any]) -> str:
    frames = [moment.frames[run] for moment in moments]
    data = film_data(
        [f.drawn for f in frames], label=f"Langevin trajectory of {settings['of']}",
        captions=captions_of(frames), series=series_of(moments, run),
    )  # fmt: skip
    note = f"{settings['checkpoint']}, schedule {settings['schedule']}, start {run + 1}"
    return film(data, f"From noise to {settings['of']}", note)
