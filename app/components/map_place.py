"""Off the points of the map: decode an empty place, and drop one's own crystal onto it."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import streamlit as st

from app import cache
from app.components.candidates import candidate_card, candidate_table, keep_controls
from app.components.job_box import begin, job_box, job_of
from app.components.sampler import consistency_controls, sampler_controls
from app.components.selection import select
from app.components.sources import file_source
from app.services import interpolate
from app.services.checkpoints import CheckpointInfo
from app.services.chemistry import pretty
from app.services.latent_map import LatentMap

_PAGE = "map"


def place_panel(of: LatentMap, info: CheckpointInfo, place: tuple[float, float]) -> None:
    """Decode where there is no crystal, from the mean of the nearest known latents."""
    import torch

    from cdvae_core.latent import carry_over

    st.html('<p class="hint">An empty place. Its latent is the mean of the six nearest known ones, '
            "weighted by closeness: UMAP has no inverse.</p>")  # fmt: skip
    [dataset] = {split.info.dataset for split in of.splits.values()}
    here = {
        "checkpoint": info.name, "stamp": info.stamp, "dataset": dataset,
        "splits": list(of.splits), "place": list(place),
    }  # fmt: skip
    with st.container(horizontal=True, vertical_alignment="bottom"):
        schedule, seed = sampler_controls()
        consistency = consistency_controls()
        if st.button("Decode here", type="primary", icon=":material/colorize:"):
            z = carry_over(np.array([place]), of.places, of.latents)
            started = interpolate.start(
                cache.model(info), torch.tensor(z, dtype=torch.float32), schedule=schedule,
                seed=seed, consistency=consistency, judge=cache.judge(info),
            )  # fmt: skip
            settings = {**here, "schedule": schedule, "seed": seed, **asdict(consistency)}
            begin(_PAGE, started, settings)
    job, settings = job_of(_PAGE)
    if job is None or any(settings[name] != value for name, value in here.items()):
        return
    job_box(_PAGE, "Decoding", lambda job: None)
    for one in job.items():
        one = replace(one, name=f"empty place, seed {settings['seed']}")
        candidate_card(one, "place")
        candidate_table([one], info)
        keep_controls([one], info, _PAGE, settings)


def own_crystal(of: LatentMap, info: CheckpointInfo) -> np.ndarray | None:
    """A file of one's own on the map: where it lies, `[2]`, and what is near."""
    from cdvae_core.latent import carry_over, nearest

    with st.expander("Your own crystal on the map", icon=":material/upload_file:"):
        source = file_source(info, "map-own")
        if source is None:
            return None
        z = source.z.numpy()[None]
        index, distance = nearest(z, of.latents, 5)
        st.html(f'<p class="note">{source.label}: the star. Nearest in latent space:</p>')
        with st.container(horizontal=True, gap="small"):
            for other, far in zip(index[0].tolist(), distance[0].tolist(), strict=True):
                st.button(
                    pretty(of.formulas[other]), key=f"own-near-{other}", on_click=select,
                    args=(of.ids[other],), help=f"{of.ids[other]}, distance {far:.2f} in z",
                )  # fmt: skip
        return carry_over(z, of.latents, of.places)[0]
