"""What every page begins with, and how it says that something is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import streamlit as st

from cdvae_core.errors import CdvaeError

_STYLE = Path(__file__).with_name("style.css")


def page_header(title: str, lead: str) -> None:
    """The title with one sentence under it."""
    st.html(_STYLE)
    st.title(title, anchor=False)
    st.html(f'<p class="lead">{lead}</p>')


@contextmanager
def error_box(stop: bool = True) -> Iterator[None]:
    """Bad input inside becomes one sentence in a box, and the page ends there if it is to stop."""
    try:
        yield
    except CdvaeError as error:
        st.error(sentence(str(error)), icon=":material/error:")
        if stop:
            st.stop()


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?", "`")) else text + "."
