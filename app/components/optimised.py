"""The course and the outcome of an optimisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import streamlit as st

from app import cache
from app.components.candidates import (
    candidate_card,
    candidate_table,
    downloads,
    gallery,
    keep_controls,
    prop_title,
    unit_of,
    verdict_words,
)
from app.components.curves import Curve, line_chart
from app.components.path_charts import path_on_map
from app.services.checkpoints import CheckpointInfo
from app.services.decoding import Candidate
from app.services.jobs import Job
from app.services.optimise import Progress, Waypoint, best_of, start, success_rates, unfinished

CURVES = 12  # starts whose property is drawn
WAYS = 5  # starts that are drawn on the map


def curve(items: Sequence[Any], info: CheckpointInfo, settings: dict[str, Any]) -> None:
    """The predicted property over steps, and the crystal that was decoded last."""
    progress = [one for one in items if isinstance(one, Progress)]
    if progress:
        _predicted(progress, items, info, settings)
    waypoints = [one for one in items if isinstance(one, Waypoint)]
    if waypoints:
        last = waypoints[-1]
        said = f"the latest of {len(waypoints)}, {verdict_words(last.candidate)}"
        candidate_card(last.candidate, "latest", said)


def _predicted(
    progress: Sequence[Progress],
    items: Sequence[Any],
    info: CheckpointInfo,
    settings: dict[str, Any],
) -> None:
    steps = [one.step for one in progress]
    values = np.stack([one.predicted for one in progress])
    shown = min(values.shape[1], CURVES)
    one = values.shape[1] == 1
    curves = [
        Curve("model's guess" if one else settings["labels"][i], values[:, i].tolist(), dashed=one)
        for i in range(shown)
    ]
    guide = settings["target"] if not settings["direction"] else None
    if one:
        curves.append(_judged(items, steps))
    line_chart(curves, key="optimise-curve", x=steps, x_title="step", y_title=prop_title(info),
               points=False, height=300, guide=guide)  # fmt: skip


def _judged(items: Sequence[Any], steps: Sequence[int]) -> Curve:
    """The independent network's word at the steps whose crystals are decoded, None elsewhere."""
    said = {
        one.step: one.candidate.verdict.prop
        for one in items
        if isinstance(one, Waypoint) and one.candidate.verdict
    }
    return Curve("independent network", [said.get(step) for step in steps], dots=True)


def _ways(job: Job, info: CheckpointInfo) -> None:
    """The first few ways on the map; drawn once, when the job is over."""
    progress = [one for one in job.items() if isinstance(one, Progress)]
    if not progress:
        return
    few = progress[:: max(1, len(progress) // 20)]
    starts = min(few[0].z.shape[0], WAYS)
    path_on_map(info, [np.stack([one.z[i] for one in few]) for i in range(starts)], "optimise")


def outcome(job: Job, info: CheckpointInfo, settings: dict[str, Any]) -> None:
    """The best crystal of each start, once the job is over."""
    waypoints = [one for one in job.items() if isinstance(one, Waypoint)]
    if job.running or not waypoints:
        return
    _ways(job, info)
    best = best_of(waypoints, settings["before"], settings["direction"], settings["target"])
    judged = any(w.candidate.verdict and w.candidate.verdict.prop is not None for w in waypoints)
    by = "the independent network" if judged else "the model's own guess: there is no other judge"
    st.subheader("The best of each start", anchor=False)
    st.html(f'<p class="note">Chosen among the valid crystals of its way by {by}.</p>')
    if not best:
        st.warning("No crystal on any way is valid.")
    else:
        _rates(best, info, settings)
        words = {True: "yes", False: "no", None: "–"}
        unit = f", {unit_of(info)}" if unit_of(info) else ""
        more: dict[str, list[Any]] = {
            f"Before{unit}": [None if b.before is None else round(b.before, 3) for b in best],
            f"After{unit}": [None if b.after is None else round(b.after, 3) for b in best],
            "Better": [words[b.improved] for b in best],
        }
        chosen = [_told(b.waypoint, settings) for b in best]
        gallery(chosen, "best")
        candidate_table(chosen, info, more)
    with st.expander("All crystals on the way"):
        candidate_table([_told(one, settings) for one in waypoints], info)
    kept = {k: v for k, v in settings.items() if k != "before"}
    found = [one.candidate for one in waypoints]
    keep_controls([_told(one, settings) for one in waypoints], info, "optimise", kept)
    downloads(found, "optimised")


def _told(one: Waypoint, settings: dict[str, Any]) -> Candidate:
    """A crystal of a way with a name that says which way."""
    what = "draw" if settings["mode"] == "guided" else "step"
    return replace(one.candidate, name=f"{what} {one.step} from {settings['labels'][one.start]}")


def _rates(best: Sequence[Any], info: CheckpointInfo, settings: dict[str, Any]) -> None:
    """SR5, SR10 and SR15 where many starts were minimised."""
    limits = cache.thresholds(info)
    starts = len(settings["labels"])
    known = [b.improved for b in best if b.improved is not None]
    with st.container(horizontal=True):
        if known:  # draws from a prior improve on nothing
            st.metric("Improved", f"{sum(known)} of {starts}", width="content")
        if settings["direction"] == -1 and starts > 1 and limits:
            for (name, rate), limit in zip(
                success_rates(list(best), starts, limits).items(), limits, strict=True
            ):
                st.metric(name, f"{100 * rate:.0f} %", width="content",
                          help=f"Starts whose best crystal is below {limit:.3f}, that percentile "
                          "of the training data.")  # fmt: skip


def go_on(job: Job, info: CheckpointInfo, settings: dict[str, Any]) -> Job | None:
    """A button that takes up an ascent that was stopped; the job it starts."""
    import torch

    from cdvae_core.consistency import Consistency
    from cdvae_core.optimise import Goal

    course = unfinished(job.items(), settings["steps"])
    if job.running or settings["mode"] == "guided" or not course:
        return None
    if not st.button(f"Go on from step {course[-1].step:,}", icon=":material/resume:"):
        return None
    goal = Goal(settings["direction"], settings["target"], settings["prior_weight"])
    return start(
        cache.model(info), torch.as_tensor(course[-1].z), goal,
        flow=info.path if settings["mode"] == "flow" else None, steps=settings["steps"],
        step_size=settings["step_size"], kept=settings["kept"], schedule=settings["schedule"],
        seed=settings["seed"], consistency=Consistency(settings["tries"], settings["exchange"]),
        judge=cache.judge(info), earlier=course,
    )  # fmt: skip
