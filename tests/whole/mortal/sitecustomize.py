"""Python reads this first where PYTHONPATH names its folder: the process's threads can be ended one by one.

SIGUSR1 ends the main thread, SIGUSR2 the queue's at its next look at the disk; the others go on, as the kernel lets them.
"""

import ctypes
import os
import platform
import signal
import threading
from typing import Any

EXIT = {"x86_64": 60, "aarch64": 93}[platform.machine()]
"""The system call that ends the thread that makes it."""

_libc = ctypes.CDLL(None)
_statvfs = os.statvfs
_ending = threading.Event()


def _look(path: Any) -> os.statvfs_result:
    if _ending.is_set() and threading.current_thread() is not threading.main_thread():
        _libc.syscall(EXIT, 0)
    return _statvfs(path)


os.statvfs = _look
signal.signal(signal.SIGUSR1, lambda *_: _libc.syscall(EXIT, 0))
signal.signal(signal.SIGUSR2, lambda *_: _ending.set())
