"""Memory that the C library keeps instead of giving it back after each training step.

glibc returns a large freed block, and the free top of its heap, to the kernel. A training step
frees all its activations at the end and asks for the same again at once, so every step had its
pages zeroed anew: a tenth of its time on a CPU, more with larger micro-batches
(`python benchmarks/network.py`, the rows "memory given back").
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of <malloc.h>
_LARGEST_BLOCK, _NEVER = 2**30, 2**31 - 1


def keep_freed_memory() -> bool:
    """From now on, for this process; whether its C library could do it (glibc can)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # no such library, no such function, Windows
        return False
    done = [mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK), mallopt(_TRIM_THRESHOLD, _NEVER)]
    return all(done)
