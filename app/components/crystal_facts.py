"""A crystal in words and numbers, beside or under its picture."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

import streamlit as st

from app.services.chemistry import pretty
from app.services.facts import CrystalFacts


def crystal_title(formula: str, detail: str = "") -> None:
    """The formula, set like a heading, and a quiet line beside it."""
    small_title(pretty(formula), detail)


def small_title(text: str, detail: str = "") -> None:
    """Words set like a formula, and a quiet line beside them."""
    st.html(f'<p class="formula">{escape(text)}<span>{escape(detail)}</span></p>')


def facts_panel(facts: CrystalFacts, more: Iterable[tuple[str, str]] = ()) -> None:
    """Symmetry, cell, density and size, as a list of terms; `more` adds rows."""
    a, b, c = facts.lengths
    alpha, beta, gamma = facts.angles
    rows = [
        ("Space group", facts.space_group),
        ("Atoms in cell", str(facts.num_atoms)),
        ("a, b, c", f"{a:.3f}, {b:.3f}, {c:.3f} Å"),
        ("α, β, γ", f"{alpha:.1f}°, {beta:.1f}°, {gamma:.1f}°"),
        ("Volume", f"{facts.volume:.1f} Å³"),
        ("Density", f"{facts.density:.2f} g/cm³"),
        ("Shortest distance", f"{facts.shortest:.2f} Å"),
        *more,
    ]
    fact_list(rows)


def fact_list(rows: Iterable[tuple[str, str]]) -> None:
    """Terms and values in two aligned columns."""
    items = "".join(f"<dt>{escape(t)}</dt><dd>{escape(v)}</dd>" for t, v in rows)
    st.html(f'<dl class="facts">{items}</dl>')
