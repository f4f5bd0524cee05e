"""Optimise: gradient ascent in the latent space, live, judged by an independent network (G.3)."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import cache
from app.components.goal import goal_controls, settings_of
from app.components.job_box import begin, job_box, job_of
from app.components.optimised import curve, go_on, outcome
from app.components.page import page_header
from app.components.pickers import checkpoint_picker, made_with
from app.components.sampler import consistency_controls, sampler_controls
from app.components.sources import source_picker
from app.components.starts import ONE, batch_of_starts, guided_starts, mode
from app.services import optimise

PAGE = "optimise"

page_header(
    "Optimise",
    "Follow the gradient of the predicted property through the latent space, and decode crystals "
    "on the way. The prediction is the model's own guess, and it grows too good far from the data: "
    "so an independent network judges what comes out.",
)
info = checkpoint_picker(width=380)
if info.prop is None:
    st.info("This checkpoint was trained without a property: there is nothing to optimise.")
    st.stop()
goal, way = goal_controls(info)
starts: optimise.Starts | None
if way.mode == "guided":
    starts = guided_starts()
elif mode() == ONE:
    source = source_picker(info, f"{PAGE}-0", "Crystal")
    starts = (
        None
        if source is None
        else optimise.Starts([source.label], source.z[None], [source.crystal], [source.where])
    )
else:
    starts = batch_of_starts(info)
with st.container(horizontal=True, vertical_alignment="bottom"):
    schedule, seed = sampler_controls()
    consistency = consistency_controls()
    run = st.button("Optimise", type="primary", icon=":material/trending_up:", disabled=not starts)
    if run and starts is not None:
        model, judge = cache.model(info), cache.judge(info)
        how: dict[str, Any] = {
            "schedule": schedule, "seed": seed, "consistency": consistency, "judge": judge,
        }  # fmt: skip
        if way.mode == "guided":
            started = optimise.start_guided(
                model, info.path, goal, starts=len(starts.labels), draws=way.kept, **how
            )
        else:
            assert starts.z is not None  # only guided draws begin nowhere
            started = optimise.start(
                model,
                starts.z,
                goal,
                flow=info.path if way.mode == "flow" else None,
                steps=way.steps,
                step_size=way.step_size,
                kept=way.kept,
                **how,
            )
        before = optimise.before(model, starts, judge)
        settings = settings_of(info, goal, way, starts, schedule, seed, consistency, before)
        begin(PAGE, started, settings)

job, settings = job_of(PAGE)
if job is None:
    st.html('<p class="hint">Choose a goal and where to begin.</p>')
else:
    info = made_with(settings, info)
    more = len(settings["labels"]) - 1
    title = f"{settings['goal'].capitalize()}, from {settings['labels'][0]}"
    st.header(title + (f" and {more} more" if more else ""), anchor=False)
    job_box(PAGE, "Optimising", lambda job: curve(job.items(), info, settings))
    again = go_on(job, info, settings)
    if again is not None:
        begin(PAGE, again, settings)
        st.rerun()
    outcome(job, info, settings)
