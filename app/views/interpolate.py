"""Interpolate: a way through the latent space between crystals, every stop decoded."""

from __future__ import annotations

from dataclasses import asdict

import streamlit as st

from app import cache
from app.components.candidates import candidate_table, downloads, keep_controls
from app.components.job_box import begin, job_box, job_of
from app.components.page import page_header
from app.components.path_charts import film_strip, path_charts, path_on_map
from app.components.pickers import checkpoint_picker, made_with
from app.components.sampler import consistency_controls, sampler_controls
from app.components.sources import source_picker
from app.services import interpolate
from app.services.interpolate import CIRCLE, LINE, RANDOM

PAGE = "interpolate"

page_header(
    "Interpolate",
    "A way from one latent to another, decoded at every stop. Where the way leaves the data, the "
    "model has to make something up: the distance to the nearest known crystal says how far.",
)
info = checkpoint_picker(width=380)
with st.container(horizontal=True, vertical_alignment="bottom"):
    kind = st.segmented_control(
        "Way", [LINE, CIRCLE, RANDOM], default=LINE, required=True, key="way",
        persist_state="session",
        help="A great circle stays as far from the origin as its ends are; a line cuts through.",
    )  # fmt: skip
    if kind != RANDOM:
        count = st.number_input("Crystals", 2, 5, 2, key="ends", width=120, persist_state="session",
                                help="The way goes through all of them.")  # fmt: skip
        between = st.number_input("Stops between two", 1, 15, 5, key="between", width=170,
                                  persist_state="session")  # fmt: skip
        steps, length = 0, 0.0
    else:
        count, between = 1, 0
        steps = st.number_input("Steps", 1, 30, 8, key="walk", width=120, persist_state="session")
        length = st.number_input("Length of a step, in z", 0.1, 20.0, 2.0, key="length", width=190,
                                 persist_state="session")  # fmt: skip

sources = []
for first in range(0, int(count), 2):
    for place, column in enumerate(st.columns(2, gap="large")):
        if first + place < count:
            with column:
                number = first + place
                sources.append(source_picker(info, f"{PAGE}-{number}", f"Crystal {number + 1}",
                                             index=number))  # fmt: skip
ends = [source for source in sources if source is not None]
ready = len(ends) == len(sources)
with st.container(horizontal=True, vertical_alignment="bottom"):
    schedule, seed = sampler_controls()
    consistency = consistency_controls()
    if st.button("Walk", type="primary", icon=":material/route:", disabled=not ready):
        way = interpolate.points([s.z for s in ends], kind, int(between), steps=int(steps),
                                 length=length, seed=seed)  # fmt: skip
        started = interpolate.start(
            cache.model(info), way, schedule=schedule, seed=seed, consistency=consistency,
            judge=cache.judge(info),
        )  # fmt: skip
        settings = {
            "checkpoint": info.name, "way": kind, "ends": [s.label for s in ends],
            "where": [s.where for s in ends], "schedule": schedule, "seed": seed,
            "points": way.numpy(), **asdict(consistency),
        }  # fmt: skip
        walk = {"walk": int(steps), "length": float(length)}
        settings |= walk if kind == RANDOM else {"between": int(between)}
        begin(PAGE, started, settings)

job, settings = job_of(PAGE)
if job is None:
    st.html('<p class="hint">Choose where to begin and where to go.</p>')
else:
    info = made_with(settings, info)
    st.header(" → ".join(settings["ends"]), anchor=False)
    job_box(PAGE, "Decoding the way", lambda job: film_strip(job.items()))
    found = job.items()
    if not job.running and found:
        path_charts(found, info, settings["points"])
        path_on_map(info, [settings["points"]], PAGE)
        candidate_table(found, info)
        kept = {k: v for k, v in settings.items() if k != "points"}
        keep_controls(found, info, PAGE, kept, f"of {' → '.join(settings['ends'])}")
        downloads(found, "way")
