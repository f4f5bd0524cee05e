"""Long work on a page: one job for each page and session, its progress, and a stop.

The job lives in the session and not on the page: it goes on while another page is looked at, and
is there again when one comes back.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import streamlit as st

from app.components.waiting import time_left
from app.services.jobs import Job

TICK = 1.0  # seconds between two looks: each draws the charts anew, beside the job's own work


def job_of(page: str) -> tuple[Job | None, Any]:
    """The page's job and what it was started with."""
    return st.session_state.get(f"job-{page}", (None, None))


def begin(page: str, job: Job, settings: Any) -> None:
    """Put a job in the place of the page's earlier one, which is stopped."""
    earlier, _ = job_of(page)
    if earlier is not None:
        earlier.stop()
    st.session_state[f"job-{page}"] = (job, settings)
    st.session_state[f"watched-{page}"] = job


def same_run(page: str, settings: dict[str, Any]) -> bool:
    """Whether the page shows what was made with these settings, as they are kept."""
    job, own = job_of(page)
    if job is None:
        return False
    shown, wanted = ({k: s.get(k) for k in settings} for s in (own, settings))
    return json.dumps(shown, default=str) == json.dumps(wanted, default=str)


def forget(page: str) -> None:
    """Stop the page's job, and show nothing of it any more."""
    job, _ = job_of(page)
    if job is not None:
        job.stop()
        del st.session_state[f"job-{page}"]
    if f"watched-{page}" in st.session_state:
        del st.session_state[f"watched-{page}"]


def job_box(page: str, title: str, show: Callable[[Job], None]) -> None:
    """Progress with a stop while the page's job runs, and what it has made so far.

    Args:
        show: draws the job's items; called again and again while it runs, then once more.
    """
    job, _ = job_of(page)
    if job is None:
        return
    st.fragment(_live, run_every=TICK if job.running else None)(page, title, job, show)


def _live(page: str, title: str, job: Job, show: Callable[[Job], None]) -> None:
    job.begun(0.2)
    running = job.running
    job.items()  # asking keeps it alive
    if not running and st.session_state.get(f"watched-{page}") is job:
        del st.session_state[f"watched-{page}"]
        st.rerun()  # the page's other parts learn that it is over
    if running:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.progress(job.fraction, text=f"{title}: {job.message}{time_left(job.seconds_left())}")
            st.button("Stop", key=f"stop-{page}", on_click=job.stop, icon=":material/stop:")
    elif job.status == "failed":
        st.error(job.error, icon=":material/error:")
    elif job.status == "stopped":
        st.html('<p class="note">Stopped. What was finished by then is kept.</p>')
    show(job)


def keep_alive() -> None:
    """Every run of any page counts as looking after all jobs of the session."""
    for key, value in st.session_state.items():
        if str(key).startswith("job-"):
            value[0].items()
