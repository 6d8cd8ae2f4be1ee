"""Setting of glibc's malloc that makes it keep freed memory, which speeds up programs that compute on CPU.

XLA allocates its temporaries anew in every step. As malloc is set by default, it gives large blocks back to the kernel when they
are freed, and the next step pays for the same memory again in page faults.
"""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # M_... of malloc.h


def keep_freed_memory() -> bool:
    """Set malloc to use one arena that grows and never shrinks, for this whole process.

    Only commands call this, since a library must not decide it for a whole process. Returns False where malloc is not glibc's.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1}
    accepted = [mallopt(name, value) for name, value in settings.items()]
    return all(accepted)
