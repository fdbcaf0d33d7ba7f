"""What the C library does with the memory that a training step frees."""

from __future__ import annotations

import ctypes
import os

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # their numbers in malloc.h of glibc
KEPT = 2**30  # bytes


def keep_freed_memory() -> bool:
    """Have malloc keep up to a gibibyte of freed memory for the next step; whether it does.

    Every step takes and frees the same buffers. By default glibc gives the large ones back to the
    system, which hands them out anew page by page: a tenth of a step of a narrow network. This
    holds for the whole process; where malloc is set up in the environment, that stands, and C
    libraries other than glibc are left alone.
    """
    if any(name.startswith("MALLOC_") for name in os.environ) or "GLIBC_TUNABLES" in os.environ:
        return False
    try:
        library = ctypes.CDLL(None)
        set_option, _ = library.mallopt, library.gnu_get_libc_version
    except (AttributeError, OSError, TypeError):  # TypeError: on Windows there is no such handle
        return False
    return bool(set_option(TRIM_THRESHOLD, KEPT) and set_option(MMAP_THRESHOLD, KEPT))
