"""Reconstruct a crystal live: start, stop, the player, the comparison, downloads."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import cache
from app.components.candidates import keep_controls
from app.components.crystal_facts import crystal_title, fact_list
from app.components.crystal_viewer import crystal_view, trajectory_player
from app.components.films import captions_of, frame_series
from app.components.sampler import sampler_controls
from app.components.waiting import time_left
from app.services import export, reconstruct
from app.services.checkpoints import CheckpointInfo
from app.services.chemistry import formula
from app.services.decoding import Candidate
from app.services.jobs import Job
from app.services.reconstruct import Frame, Reconstruction
from cdvae_core.data.cache import CachedSplit

TICK = 0.5  # seconds between two looks at a running job
FIRST = 0.2  # seconds that the page waits for the first frame rather than for the next look
_JOB = "reconstruction"
_WATCHED = "reconstruction_watched"  # the job whose end the page has not taken in yet


@st.fragment
def reconstruction(info: CheckpointInfo, split: CachedSplit, index: int) -> None:
    """The whole section for one crystal; a fragment, so that its buttons redraw no map."""
    what = f"{info.path}:{info.stamp}:{split.fingerprint}:{index}"
    job, of, settings = st.session_state.get(_JOB, (None, None, {}))
    if of != what:
        job = None
    _controls(info, split, index, what, job)
    if job is None:
        return
    st.fragment(_live, run_every=TICK if job.running else None)(job, split, index)
    if isinstance(job.result, Reconstruction):
        _keep(job.result, info, settings)


def _controls(
    info: CheckpointInfo, split: CachedSplit, index: int, what: str, job: Job | None
) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        schedule, seed = sampler_controls()
        if job is not None and job.running:
            st.button("Stop", on_click=job.stop, icon=":material/stop:")
        else:
            st.button(
                "Reconstruct" if job is None else "Reconstruct again", type="primary",
                on_click=_start, args=(info, split, index, what, schedule, seed),
                icon=":material/autorenew:",
            )  # fmt: skip


def _start(
    info: CheckpointInfo, split: CachedSplit, index: int, what: str, schedule: str, seed: int
) -> None:
    earlier, *_ = st.session_state.get(_JOB, (None,))
    if earlier is not None:
        earlier.stop()
    job = reconstruct.start(cache.model(info), split, index, schedule, seed)
    settings = {
        "checkpoint": info.name, "dataset": split.info.dataset, "splits": [split.info.split],
        "crystal": split.ids[index], "schedule": schedule, "seed": seed,
    }  # fmt: skip
    st.session_state[_JOB] = (job, what, settings)
    st.session_state[_WATCHED] = job


def forget_reconstruction() -> None:
    """Stop what runs, and show nothing of it any more."""
    job, *_ = st.session_state.get(_JOB, (None,))
    if job is not None:
        job.stop()
        del st.session_state[_JOB]


def _live(job: Job, split: CachedSplit, index: int) -> None:
    """Runs by itself while the job does, then brings the whole page up to date once."""
    job.begun(FIRST)
    running = job.running
    frames: list[Frame] = job.items()
    if not running and st.session_state.get(_WATCHED) is job:
        del st.session_state[_WATCHED]
        st.rerun()
    if job.status == "failed":
        st.error(job.error, icon=":material/error:")
    if running:
        st.progress(job.fraction, text=f"Noise to crystal, {job.message or 'encoding'}"
                    f"{time_left(job.seconds_left())}")  # fmt: skip
    if frames:
        _player(job, frames, running)
    if not running and isinstance(job.result, Reconstruction):
        _outcome(job.result, frames, split.ids[index])


def _player(job: Job, frames: list[Frame], live: bool) -> None:
    total = frames[-1].total
    trajectory_player(
        [f.drawn for f in frames], key="player", view=str(id(job)), label="Langevin trajectory",
        captions=captions_of(frames), series=frame_series(frames),
        total=reconstruct.kept(total), live=live,
    )  # fmt: skip


def _outcome(outcome: Reconstruction, frames: list[Frame], name: str) -> None:
    st.subheader("Original and reconstruction", anchor=False)
    if not outcome.complete:
        st.html('<p class="note">The run was stopped, so this is an unfinished crystal.</p>')
    pairs = (("Original", outcome.original), ("Reconstruction", outcome.result))
    for column, (title, crystal) in zip(st.columns(2, gap="medium"), pairs, strict=True):
        with column:
            crystal_title(formula(crystal.atomic_numbers), title)
            crystal_view(crystal, key=f"compare-{title}", label=f"{title} of {name}", height=300)
    left, right = st.columns(2, gap="medium")
    with left:
        _comparison(outcome)
    with right:
        _downloads(outcome, frames, name)


def _keep(outcome: Reconstruction, info: CheckpointInfo, settings: dict[str, Any]) -> None:
    if outcome.complete and outcome.z is not None:
        name = f"{settings['crystal']}, rebuilt"
        made = Candidate(name, outcome.z, outcome.result)
        keep_controls([made], info, _JOB, settings)


def _comparison(outcome: Reconstruction) -> None:
    first, second = cache.crystal_facts(outcome.original), cache.crystal_facts(outcome.result)
    matched = outcome.rms is not None
    rows = [("Match", "yes" if matched else "no")]
    if matched:
        rows += [
            ("RMS distance", f"{outcome.rms:.3f} Å"),
            ("RMSE (paper)", f"{outcome.normalised:.4f}"),
        ]
    rows += [
        ("Space group", f"{first.space_group} → {second.space_group}"),
        ("Volume", f"{first.volume:.1f} → {second.volume:.1f} Å³"),
        ("Shortest distance", f"{first.shortest:.2f} → {second.shortest:.2f} Å"),
    ]
    fact_list(rows)
    st.html(
        '<p class="note">Match: pymatgen’s StructureMatcher with stol 0.5, angle_tol 10, '
        "ltol 0.3. RMSE is the RMS distance over the cube root of the volume per atom.</p>"
    )


def _downloads(outcome: Reconstruction, frames: list[Frame], name: str) -> None:
    from cdvae_core.structures import to_cif

    files = (
        ("Reconstruction, CIF", lambda: to_cif(outcome.result), "reconstruction", "cif"),
        ("Original, CIF", lambda: to_cif(outcome.original), "original", "cif"),
        ("Trajectory, extxyz", lambda: export.trajectory_extxyz(frames), "trajectory", "extxyz"),
    )
    for label, make, kind, suffix in files:
        st.download_button(
            label, make, file_name=f"{export.file_name(name, kind)}.{suffix}", mime="text/plain",
            on_click="ignore", icon=":material/download:", width="stretch",
        )  # fmt: skip
