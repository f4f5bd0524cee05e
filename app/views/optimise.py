"""Optimise: gradient ascent in the latent space, live, judged by an independent network (G.3)."""

from __future__ import annotations

import streamlit as st

from app import cache
from app.components.goal import goal_controls
from app.components.job_box import begin, job_box, job_of
from app.components.optimised import curve, outcome
from app.components.page import page_header
from app.components.pickers import checkpoint_picker
from app.components.sampler import sampler_controls
from app.components.sources import source_picker
from app.components.starts import batch_of_starts
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
goal, steps, step_size, kept = goal_controls(info)
mode = st.segmented_control(
    "Begin from", ["One crystal", "Many test crystals"], default="One crystal", required=True,
    key="begin", persist_state="session",
)  # fmt: skip
if mode == "One crystal":
    source = source_picker(info, PAGE, "Crystal")
    starts = None if source is None else ([source.label], source.z[None], [source.crystal])
else:
    starts = batch_of_starts(info)
with st.container(horizontal=True, vertical_alignment="bottom"):
    schedule, seed = sampler_controls()
    if st.button("Optimise", type="primary", icon=":material/trending_up:", disabled=not starts):
        labels, z, crystals = starts
        judge = cache.judge(info)
        job = optimise.start(
            cache.model(info), z, goal, steps=steps, step_size=step_size, kept=kept,
            schedule=schedule, seed=seed, judge=judge,
        )  # fmt: skip
        before = optimise.before(cache.model(info), z, crystals, judge)
        settings = {
            "checkpoint": info.name, "goal": str(goal), "prior_weight": goal.prior_weight,
            "steps": steps, "step_size": step_size, "kept": kept, "schedule": schedule,
            "seed": seed, "labels": labels, "before": before, "direction": goal.direction,
            "target": goal.target,
        }  # fmt: skip
        begin(PAGE, job, settings)

job, settings = job_of(PAGE)
if job is None:
    st.html('<p class="hint">Choose a goal and where to begin.</p>')
else:
    st.header(f"{settings['goal'].capitalize()}, from {settings['labels'][0]}"
              + (f" and {len(settings['labels']) - 1} more" if len(settings["labels"]) > 1 else ""),
              anchor=False)  # fmt: skip
    job_box(PAGE, "Optimising", lambda job: curve(job.items(), info, settings))
    outcome(job, info, settings)
