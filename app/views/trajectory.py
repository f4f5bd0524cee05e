"""Trajectory: Langevin dynamics as a film, several seeds from one latent side by side."""

from __future__ import annotations

import streamlit as st

from app import cache
from app.components.candidates import keep_controls
from app.components.films import endings, film_export, films
from app.components.job_box import begin, job_box, job_of
from app.components.page import page_header
from app.components.pickers import checkpoint_picker, made_with
from app.components.sampler import sampler_controls
from app.components.sources import source_picker
from app.services import trajectory

PAGE = "trajectory"

page_header(
    "Trajectory",
    "One latent, several starts. The decoder begins with atoms anywhere in the cell and slides "
    "them, step by step and with ever less noise, to where it believes that they belong.",
)
info = checkpoint_picker(width=380)
source = source_picker(info, f"{PAGE}-0", "Latent of")
with st.container(horizontal=True, vertical_alignment="bottom"):
    schedule, seed = sampler_controls()
    seeds = st.slider("Starts side by side", 1, 4, 2, key="starts", width=220,
                      persist_state="session")  # fmt: skip
    run = st.button("Run", type="primary", icon=":material/play_arrow:", disabled=source is None)
    if run and source is not None:
        started = trajectory.start(
            cache.model(info), source.z, source.crystal, cache.judge(info).network,
            schedule=schedule, seed=seed, count=seeds,
        )  # fmt: skip
        settings = {
            "of": source.label, "checkpoint": info.name, "where": [source.where],
            "schedule": schedule, "seed": seed, "starts": seeds, "z": source.z.numpy(),
        }  # fmt: skip
        begin(PAGE, started, settings)

job, settings = job_of(PAGE)
if job is not None:
    info = made_with(settings, info)
    st.header(f"From noise to {settings['of']}", anchor=False)
    job_box(PAGE, "Noise to crystal", lambda job: films(job, settings))
    if not job.running:
        film_export(job, settings)
        kept = {k: v for k, v in settings.items() if k != "z"}
        keep_controls(endings(job, settings), info, PAGE, kept)
else:
    st.html('<p class="hint">Choose a crystal, or a draw from the prior, and run it.</p>')
