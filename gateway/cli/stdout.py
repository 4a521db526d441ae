"""Standard output. That it fails is told from every other OSError, which may be a driver's, a disk's or a bug."""

import errno
import io
import os
import sys
from typing import Any

from gateway.errors import OutputFailed

NUMBER = 1
BROKEN_PIPE = 141
"""As a shell says it of programs that ended by SIGPIPE."""


class _Descriptor(io.FileIO):
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError as error:
            raise OutputFailed("nobody reads standard output any more", BROKEN_PIPE) from error
        except OSError as error:
            why = "closed" if error.errno == errno.EBADF else error.strerror
            raise OutputFailed(f"standard output: {why}", os.EX_CANTCREAT) from error


def prepare() -> None:
    """Devices choose names and content, and the locale may lack their letters: these are escaped, as Python does it on
    standard error."""
    given = sys.__stdout__
    if given is None:
        # Closed. Without this the next file that is opened, perhaps the queue, would be what is printed into.
        os.dup2(os.open(os.devnull, os.O_RDONLY), NUMBER)
    raw = _Descriptor(NUMBER, "w", closefd=False)
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=None if given is None else given.encoding,
        errors="backslashreplace",
        line_buffering=raw.isatty(),
    )


def give_up() -> None:
    """Python flushes it once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), NUMBER)
