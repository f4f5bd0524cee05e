"""The parts of the home page."""

from __future__ import annotations

from html import escape

import streamlit as st

from app import cache
from app.components.crystal_facts import crystal_title, fact_list
from app.components.crystal_viewer import crystal_view
from app.components.selection import select
from app.services.checkpoints import CheckpointInfo
from app.services.chemistry import formula
from app.services.colouring import readable
from app.services.datasets import data_card, gallery
from cdvae_core.errors import CdvaeError


def model_line(info: CheckpointInfo) -> None:
    """What the checkpoint can do, in one line."""
    parts = [f"up to {info.max_atoms} atoms", f"{info.latent_dim} latent dimensions"]
    if info.prop:
        parts.append(f"predicts {readable(info.prop).lower()}")
    if info.dataset:
        parts.insert(0, f"trained on {info.dataset}")
    line = ", ".join(parts)
    st.html(f'<p class="note">{escape(line[:1].upper() + line[1:])}.</p>')


def gallery_row(info: CheckpointInfo) -> None:
    """Three crystals of the checkpoint's test set, each a way into the map."""
    try:
        split = cache.split(info.dataset or "", "test")
    except CdvaeError:
        return  # the dataset panel says what is missing
    st.html(f'<p class="note">Three crystals of the {escape(info.dataset or "")} test set.</p>')
    for column, (name, crystal) in zip(st.columns(3, gap="medium"), gallery(split), strict=False):
        with column:
            crystal_view(crystal, key=f"gallery-{name}", label=name, height=260)
            crystal_title(formula(crystal.atomic_numbers), name)
            if st.button("See it on the map", key=f"open-{name}", icon=":material/scatter_plot:"):
                select(name)
                st.switch_page("views/latent_map.py")


def dataset_panel(info: CheckpointInfo) -> None:
    """Facts about the data that the checkpoint was trained on."""
    if info.dataset is None:
        st.info("This checkpoint does not say what it was trained on.")
        return
    try:
        facts = cache.dataset_facts(info.dataset)
    except CdvaeError as error:
        st.error(str(error), icon=":material/error:")
        return
    fewest, most = facts.atoms
    rows = [
        ("Name", facts.name),
        ("What", facts.title),
        ("Source", facts.source),
        ("Crystals", ", ".join(f"{n:,} {split}" for split, n in facts.sizes.items())),
        ("Atoms in cell", str(most) if fewest == most else f"{fewest} to {most}"),
        ("Elements", str(facts.elements)),
    ]
    if facts.spread:
        low, middle, high = facts.spread
        rows.append(
            (
                readable(facts.prop or ""),
                f"median {middle:.2f}, 90 % within {low:.2f} to {high:.2f} {facts.unit}",
            )
        )
    if facts.skipped:
        rows.append(("Skipped", f"{facts.skipped} structures that could not be used"))
    fact_list(rows)
    text = data_card(info.dataset)
    if text:
        with st.expander("How the data were made"), st.container(key="data-card"):
            st.markdown(text)
    if facts.notes:
        st.html(f'<p class="note">Note: {escape("; ".join(facts.notes))}.</p>')


def next_steps(info: CheckpointInfo) -> None:
    """Into the app, and out of it."""
    if st.button("Open the latent map", type="primary", icon=":material/scatter_plot:"):
        st.switch_page("views/latent_map.py")
    st.html(
        '<p class="note">Pick a crystal there and watch the model rebuild it from noise. '
        "The same from the command line:</p>"
    )
    name = f"checkpoints/{info.name}" if info.path.parent.name == "checkpoints" else str(info.path)
    dataset = info.dataset or "perov_like"
    st.code(
        f"cdvae reconstruct {name} \\\n  --dataset {dataset} -n 8 --out rebuilt\n"
        f"cdvae sample {name} \\\n  -n 20 --out new",
        language="bash", wrap_lines=True,
    )  # fmt: skip
