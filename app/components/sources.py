"""Where a walk begins: a crystal of the data, one's own file, the library, or the prior."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import streamlit as st

from app import cache
from app.components.page import sentence
from app.components.pickers import SPLIT_NAMES
from app.components.selection import selected_id
from app.services import library, uploads
from app.services.checkpoints import CheckpointInfo
from app.services.chemistry import formula, pretty
from app.services.datasets import elements_of
from cdvae_core.config import MAX_SEED
from cdvae_core.crystal import SYMBOLS, Crystal
from cdvae_core.data.cache import find_split
from cdvae_core.data.registry import SPLITS
from cdvae_core.errors import CdvaeError
from cdvae_core.structures import to_cif

if TYPE_CHECKING:
    from torch import Tensor

_UPLOADS = 20  # parsed files that a session keeps
SHORTEST = 0.5  # Å, below which a crystal counts as invalid
DATA, FILE, LIBRARY, PRIOR = "Dataset", "Own file", "Library", "Random"


@dataclass(frozen=True, eq=False)
class Source:
    """A latent to begin from.

    Attributes:
        crystal: what it is the latent of; None for a draw from the prior.
        where: in words that find it again.
    """

    label: str
    z: Tensor
    crystal: Crystal | None
    where: dict[str, Any]


def source_picker(info: CheckpointInfo, key: str, label: str, index: int = 0) -> Source | None:
    """Choose one source; None, with a word on what is missing, until there is one.

    Args:
        index: which crystal of the data to propose.
    """
    kinds = [DATA, FILE, LIBRARY, PRIOR]
    kind = st.segmented_control(
        label, kinds, default=DATA, required=True, key=f"{key}-kind", persist_state="session"
    )
    try:
        picked = {DATA: _data, FILE: _file, LIBRARY: _library, PRIOR: _prior}[kind]
        return picked(info, key, index)
    except CdvaeError as error:
        st.error(sentence(str(error)), icon=":material/error:")
        return None


def _data(info: CheckpointInfo, key: str, index: int) -> Source | None:
    built = [s for s in reversed(SPLITS) if info.dataset and find_split(info.dataset, s)]
    if info.dataset is None or not built:
        st.html(f'<p class="note">The data of this checkpoint ({info.dataset}) are not built.</p>')
        return None
    left, right = st.columns([1, 2])
    name = left.selectbox(
        "Split", built, key=f"{key}-split", format_func=SPLIT_NAMES.__getitem__,
        persist_state="session",
    )  # fmt: skip
    split = cache.split(info.dataset, name)
    titles = cache.titles(info.dataset, name)
    here = selected_id()
    start = split.ids.index(here) if index == 0 and here in split.ids else index % len(split)
    place = right.selectbox(
        "Crystal", range(len(split)), index=start, format_func=titles.__getitem__,
        key=_crystal_key(key, name, index), persist_state="session",
        help="Type a formula or an id. The first is the one selected on the map.",
    )  # fmt: skip
    z = cache.latent(info, info.dataset, name, place)
    return Source(titles[place], z, split.crystal(place), {"split": name, "id": split.ids[place]})


def _crystal_key(key: str, split: str, index: int) -> str:
    """Of the widget; the first source follows what is selected on the map."""
    return f"{key}-{split}-{selected_id() if index == 0 else index}"


def restore_source(info: CheckpointInfo, key: str, index: int, where: dict[str, Any]) -> None:
    """Set the widgets to a source by its words."""
    state = st.session_state
    if "id" in where:
        state[f"{key}-kind"] = DATA
        if info.dataset is None or not find_split(info.dataset, where["split"]):
            return  # the picker says that the data are not built
        state[f"{key}-split"] = where["split"]
        split = cache.split(info.dataset, where["split"])
        if where["id"] in split.ids:
            state[_crystal_key(key, where["split"], index)] = split.ids.index(where["id"])
    elif "prior" in where:
        state[f"{key}-kind"], state[f"{key}-draw"] = PRIOR, where["seed"]
    elif "file" in where:
        state[f"{key}-kind"], state[f"{key}-kept"] = FILE, where
    else:
        state[f"{key}-kind"] = LIBRARY
        known = where["library"] in _fitting(info)
        state[f"{key}-entry"] = where["library"] if known else None  # it has been removed since


def file_source(info: CheckpointInfo, key: str) -> Source | None:
    """One's own file; None until there is one that can be read."""
    try:
        return _file(info, key, 0)
    except CdvaeError as error:
        st.error(sentence(str(error)), icon=":material/error:")
        return None


def _file(info: CheckpointInfo, key: str, index: int) -> Source | None:
    file = st.file_uploader("CIF or POSCAR", key=f"{key}-file", max_upload_size=1)
    kept = st.session_state.get(f"{key}-kept")
    if file is not None:
        name, content = file.name, file.getvalue()
    elif kept is not None:
        name, content = kept["file"], kept["cif"].encode()
        with st.container(horizontal=True, vertical_alignment="center"):
            st.html(f'<p class="note">As it was: {escape(name)}.</p>')
            st.button("Forget it", key=f"{key}-forget", on_click=st.session_state.pop,
                      args=(f"{key}-kept",))  # fmt: skip
    else:
        st.html('<p class="note">It is read in a process of its own and stays on this machine.</p>')
        return None
    digest = hashlib.sha256(name.encode() + content).hexdigest()
    known = st.session_state.setdefault("uploads", {})
    if digest not in known:
        with st.spinner("Reading the file"):
            known[digest] = uploads.parse(content, name)
        while len(known) > _UPLOADS:
            del known[next(iter(known))]
    crystal, edges = known[digest]
    z = uploads.encode(cache.model(info), crystal, edges)
    where = {"file": name, "cif": to_cif(crystal)}
    if file is not None:
        st.session_state[f"{key}-kept"] = where  # the widget forgets it on another page
    _doubts(info, crystal)
    return Source(pretty(formula(crystal.atomic_numbers)), z, crystal, where)


def _doubts(info: CheckpointInfo, crystal: Crystal) -> None:
    """A word on a crystal that the checkpoint cannot know."""
    shortest = cache.crystal_facts(crystal).shortest
    if shortest < SHORTEST:
        st.warning(f"Two atoms are {shortest:.2f} Å apart: this is hardly a crystal.",
                   icon=":material/warning:")  # fmt: skip
    training = cache.training(info.dataset)
    known = elements_of(training) if training else SYMBOLS
    new = sorted({SYMBOLS[z] for z in crystal.atomic_numbers.tolist()} - set(known))
    if new:
        st.warning(f"The training data hold no {', '.join(new)}: what the model makes of it means "
                   "little.", icon=":material/warning:")  # fmt: skip


def _library(info: CheckpointInfo, key: str, index: int) -> Source | None:
    import torch

    fitting = _fitting(info)
    if not fitting:
        st.html('<p class="note">The library holds no latent of this checkpoint yet.</p>')
        return None
    names = {k: f"{pretty(e.formula)}, {e.title} (no. {e.number})" for k, e in fitting.items()}
    known = st.selectbox(
        "Entry", names, key=f"{key}-entry", format_func=names.__getitem__,
        placeholder="It has been removed; choose another", persist_state="session",
    )  # fmt: skip
    if known is None:
        return None
    entry = fitting[known]
    return Source(entry.title, torch.tensor(entry.z), entry.crystal, {"library": known})


def _fitting(info: CheckpointInfo) -> dict[str, library.Entry]:
    """The entries with a latent of these very weights, by key."""
    return {
        entry.key: entry for entry in library.entries()
        if entry.z is not None and entry.provenance.get("checkpoint") == info.name
        and _weights(entry) in (None, info.weights)
    }  # fmt: skip


def _weights(entry: library.Entry) -> str | None:
    """Whose latent it is: None where it does not say; an earlier way of saying it fits nothing."""
    known = entry.provenance
    return known.get("weights", "by time" if "stamp" in known else None)


def _prior(info: CheckpointInfo, key: str, index: int) -> Source | None:
    from cdvae_core.prior import draw

    seed = st.number_input(
        "Seed of the draw", 0, MAX_SEED, index, key=f"{key}-draw", persist_state="session"
    )
    z, name = draw(cache.model(info), info.path, 1, int(seed))
    return Source(f"draw {seed} from the {name} prior", z[0], None, {"prior": name, "seed": seed})
