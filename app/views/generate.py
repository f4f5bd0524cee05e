"""Generate: new crystals from a prior, with wishes, judged as they come."""

from __future__ import annotations

from dataclasses import asdict

import streamlit as st

from app import cache
from app.components.candidates import candidate_table, downloads, gallery, keep_controls
from app.components.job_box import begin, job_box, job_of
from app.components.page import page_header
from app.components.pickers import checkpoint_picker, made_with
from app.components.relaxed import relaxation
from app.components.sampler import consistency_controls, sampler_controls
from app.components.sifted import sifted, tally_row
from app.components.wishes import wishes
from app.services import generate

PAGE = "generate"

page_header(
    "Generate",
    "Draw latents where the model's crystals live, and decode them. Each crystal is judged as it "
    "comes: does it hold together, is it new, has it come before?",
)
info = checkpoint_picker(width=380)
prior, condition, guidance = wishes(info)
with st.container(horizontal=True, vertical_alignment="bottom"):
    count = st.number_input("How many", 1, 2000, 24, key="count", width=120,
                            persist_state="session")  # fmt: skip
    schedule, seed = sampler_controls()
    consistency = consistency_controls()
    if st.button("Generate", type="primary", icon=":material/auto_awesome:"):
        started = generate.start(
            cache.model(info), info.path, int(count), prior=prior, condition=condition,
            guidance=guidance, schedule=schedule, seed=seed, consistency=consistency,
            judge=cache.judge(info),
        )  # fmt: skip
        settings = {
            "checkpoint": info.name, "count": int(count), "prior": prior, "schedule": schedule,
            "seed": seed, "guidance": guidance, "wishes": asdict(condition), **asdict(consistency),
        }  # fmt: skip
        begin(PAGE, started, settings)

job, settings = job_of(PAGE)
if job is None:
    st.html('<p class="hint">Say how many, and what they should be like if you have wishes.</p>')
else:
    info = made_with(settings, info)
    job_box(PAGE, "Generating", lambda job: tally_row(job.items()))
    found = job.items()
    if found:
        shown = sifted(found)
        gallery(shown, PAGE)
        candidate_table(shown, info)
        if not job.running:
            keep_controls(shown, info, PAGE, settings, f"of seed {settings['seed']}")
            downloads(shown, "generated")
            relaxation(shown, job)
