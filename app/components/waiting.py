"""What a page shows while a job runs, and how it comes back when the job is over."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from app.services.jobs import Job

TICK = 0.5  # seconds


def finished(job: Job, title: str, retry: Callable[[], None]) -> bool:
    """True once a job is done. Until then its progress is shown; a failure is an error box."""
    if job.running and not job.wait(0.6):
        _progress(job, title)
        return False
    if job.status == "failed":
        st.error(job.error, icon=":material/error:")
        st.button("Try again", on_click=retry)
        return False
    return True


@st.fragment(run_every=TICK)
def _progress(job: Job, title: str) -> None:
    if not job.running:
        st.rerun()
    left = job.seconds_left()
    st.progress(job.fraction, text=f"{title}: {job.message}{time_left(left)}")


def time_left(seconds: float | None) -> str:
    """ ", about 20 s left", or nothing where it is not known."""
    if seconds is None or seconds < 1:
        return ""
    return (
        f", about {seconds:.0f} s left" if seconds < 90 else f", about {seconds / 60:.0f} min left"
    )
