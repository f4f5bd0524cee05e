"""A process that does tasks one by one for its parent, who can kill it: `Worker`.

Some crystals hang in C code that no signal interrupts, so the work is done in a process of its
own. The two talk through pipes, in pickles that only they write. It ends with its parent.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import subprocess
import sys
import time
from threading import Thread
from typing import Any

from cdvae_core.data.workers import one_thread

_START = 300.0  # seconds that the imports may take on a busy machine


class Worker:
    """The parent's end. The process starts with the first task, and anew after a timeout."""

    _process: subprocess.Popen | None = None

    def do(self, task: str, arguments: tuple, timeout: float) -> dict[str, Any]:
        """`{"value": ...}`, or `{"failure": reason}` where the task raises, hangs or dies.

        Args:
            timeout: seconds.
        """
        if self._process is None:
            self._start()
        assert self._process is not None
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        try:
            pickle.dump((task, arguments), stdin)
            stdin.flush()
            if select.select([stdout], [], [], timeout)[0]:
                return pickle.load(stdout)
            failure = f"it took more than {timeout:g} s"
        except (EOFError, OSError, pickle.UnpicklingError):
            failure = "the process ended, perhaps for want of memory"
        self.close()
        return {"failure": failure}

    def _start(self) -> None:
        with one_thread():
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cdvae_core.evaluation.child"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        stdout = self._process.stdout
        assert stdout is not None
        if not select.select([stdout], [], [], _START)[0]:
            self.close()
            raise TimeoutError(f"a worker did not start within {_START:g} s")
        with contextlib.suppress(EOFError):
            pickle.load(stdout)  # it is ready

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in filter(None, (self._process.stdin, self._process.stdout)):
                with contextlib.suppress(OSError):
                    pipe.close()
            self._process = None

    def __del__(self) -> None:
        self.close()


def _end_with_parent() -> None:
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def main() -> None:
    """The child's end."""
    Thread(target=_end_with_parent, daemon=True).start()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no answer
    from cdvae_core.evaluation.tasks import TASKS

    def answer(content: dict[str, Any]) -> None:
        pickle.dump(content, answers)
        answers.flush()

    answer({})
    while True:
        try:
            task, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer({"value": TASKS[task](*arguments)})
        except Exception as error:  # one crystal must not end the others
            why = " ".join(str(error).split())[:300]
            answer({"failure": f"{type(error).__name__}: {why}" if why else type(error).__name__})


if __name__ == "__main__":
    main()
