"""The parts of the home page."""

from __future__ import annotations

from html import escape

import pandas as pd
import streamlit as st

from app import cache
from app.components.crystal_facts import crystal_title, fact_list
from app.components.crystal_viewer import crystal_view
from app.components.selection import select
from app.services import reports
from app.services.checkpoints import CheckpointInfo
from app.services.chemistry import formula
from app.services.colouring import readable
from app.services.datasets import data_card, gallery
from cdvae_core.errors import CdvaeError
from cdvae_core.evaluation import published
from cdvae_core.evaluation.glossary import MEANINGS, VARIANTS, shown, with_variant

PAPER = ("perov_5", "carbon_24", "mp_20")  # datasets that the paper reports
SHOWN = {
    "reconstruction": ("match_rate", "match_rate_ungated", "rms_dist"),
    "generation": (
        "struct_valid", "comp_valid", "cov_recall", "cov_precision", "wdist_density", "wdist_prop",
        "wdist_num_elems", "unique", "novel",
    ),
    "optimisation": ("SR5", "SR10", "SR15"),
    "stability": (),
}  # fmt: skip


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


def metric_panel(info: CheckpointInfo) -> None:
    """The checkpoint's figures beside the noise floor and the paper, where its reports ship."""
    own = [
        (one, variant)
        for one in reports.found()[0]
        for variant in VARIANTS
        if variant != "gaussian"  # the paper's prior is on Compare
        and one.title == with_variant(info.name, variant)
    ]
    if not own:
        return
    st.header("How good it is", anchor=False)
    rows: list[dict[str, str]] = []
    meanings: dict[str, str] = {}
    for one, variant in sorted(own, key=lambda pair: list(SHOWN).index(pair[0].report.task)):
        paper = published.rows(one.report.task, one.report.meta["cutoffs"])
        beside = paper.get("CDVAE (paper)", {}) if one.report.meta["network"] in PAPER else {}
        for name in SHOWN[one.report.task]:
            if name in one.report.metrics:
                rows.append(
                    {
                        "Task": with_variant(one.report.task.capitalize(), variant),
                        "Figure": MEANINGS[name].title,
                        "Here": shown(name, one.report.metrics[name]),
                        "Noise floor": shown(name, one.report.noise_floor.get(name)),
                        "Paper": shown(name, beside.get(name)),
                        "Over": f"{one.report.meta['n']:,}",
                    }
                )
                meanings[MEANINGS[name].title] = MEANINGS[name].says
    st.dataframe(pd.DataFrame(rows), hide_index=True, height=35 * (len(rows) + 1) + 3)
    with st.expander("What each figure is, and what it hides"):
        fact_list(meanings.items())
    st.html(
        '<p class="note">The noise floor is the training data scored as if it were a model: how '
        "often another crystal matches by chance, and what the best of ten random ones reaches. "
        "The paper's figures are over 10,000 generated crystals and whole test sets.</p>"
    )


def card_panel(info: CheckpointInfo) -> None:
    """What the checkpoint says of itself; its sections are folded away."""
    st.header("Model card", anchor=False)
    text = cache.card(info.path, info.stamp) or "This checkpoint has no card."
    head, *sections = text.split("\n## ")
    with st.container(border=True, key="card"):
        st.markdown(head)
        for section in sections:
            title, _, body = section.partition("\n")
            with st.expander(title):
                st.markdown(body)


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
    for page, icon, words in (
        ("trajectory", "movie", "Watch noise become a crystal, from several starts"),
        ("interpolate", "route", "Walk from one crystal to another"),
        ("optimise", "trending_up", "Follow a property uphill or downhill"),
        ("generate", "auto_awesome", "Generate new crystals"),
        ("compare", "bar_chart", "Compare it with other models and the paper"),
    ):
        st.page_link(f"views/{page}.py", label=words, icon=f":material/{icon}:")
    st.html('<p class="note">The same from the command line:</p>')
    name = f"checkpoints/{info.name}" if info.path.parent.name == "checkpoints" else str(info.path)
    dataset = info.dataset or "perov_like"
    st.code(
        f"cdvae reconstruct {name} \\\n  --dataset {dataset} -n 8 --out rebuilt\n"
        f"cdvae sample {name} \\\n  -n 20 --exchange --out new",
        language="bash", wrap_lines=True,
    )  # fmt: skip
