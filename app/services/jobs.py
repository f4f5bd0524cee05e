"""Long work beside the page: a thread, what it has made so far, and a way to stop it.

The page polls; the thread never touches the page. Numerical libraries are held to one thread
each, so that a job leaves the machine and the browser room to breathe.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from threading import Event, Lock, Thread
from typing import Any

from cdvae_core.errors import CdvaeError

log = logging.getLogger(__name__)

ABANDONED = 300.0  # seconds without a poll; browsers slow the timers of hidden tabs to a minute


class Job:
    """One piece of background work.

    Args:
        work: called in the thread with this job; calls `append` and `report` as it goes on, looks
            at `stopping`, and returns the result.
        needs_polls: give up when no page has asked for `ABANDONED` seconds.
    """

    def __init__(self, work: Callable[[Job], Any], *, needs_polls: bool = True) -> None:
        self._work = work
        self._needs_polls = needs_polls
        self._lock = Lock()
        self._stop = Event()
        self._begun = Event()
        self._items: list[Any] = []
        self._last_poll = time.monotonic()
        self.status = "running"
        self.error = ""
        self.result: Any = None
        self.fraction = 0.0
        self.message = ""
        self.started = time.monotonic()
        self._thread = Thread(target=self._run, name="cdvae-job", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        import torch

        torch.set_num_threads(1)
        try:
            self.result = self._work(self)
            self.status = "stopped" if self.stopping else "done"
        except CdvaeError as error:
            self.error = str(error)
            self.status = "failed"
        except Exception as error:  # whatever happened must reach the page, not die in the thread
            log.exception("background work failed")
            self.error = f"The work ended with an unexpected {type(error).__name__}: {error}"
            self.status = "failed"
        finally:
            self._begun.set()

    @property
    def running(self) -> bool:
        return self.status == "running"

    @property
    def stopping(self) -> bool:
        """Whether the work should end: someone asked, or nobody is looking any more."""
        left_alone = self._needs_polls and time.monotonic() - self._last_poll > ABANDONED
        return self._stop.is_set() or left_alone

    def stop(self) -> None:
        self._stop.set()

    def append(self, item: Any) -> None:
        with self._lock:
            self._items.append(item)
        self._begun.set()

    def report(self, fraction: float, message: str = "") -> None:
        """How far the work is, 0 to 1, and what it is doing."""
        self.fraction, self.message = fraction, message

    def items(self) -> list[Any]:
        """What has been made so far; asking keeps the job alive."""
        self._last_poll = time.monotonic()
        with self._lock:
            return list(self._items)

    def seconds_left(self) -> float | None:
        """By the pace so far; None before there is one."""
        if self.fraction < 0.02:
            return None
        return (time.monotonic() - self.started) * (1 / self.fraction - 1)

    def begun(self, seconds: float) -> bool:
        """Wait for the first thing made, or the end; true if there is either."""
        return self._begun.wait(seconds)

    def wait(self, seconds: float) -> bool:
        """Wait a moment; true if the work is over."""
        self._thread.join(seconds)
        return not self._thread.is_alive()
