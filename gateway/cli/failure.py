"""How a command ends that can't be done: one sentence on standard error, and an exit code of sysexits.h."""

import os
import sys
import traceback
from collections.abc import Callable, Sequence

from gateway.errors import CommandError, ConfigError, StorageError, TidegateError

INTERRUPTED = 130
BROKEN_PIPE = 141
"""As a shell says it of programs that ended by SIGINT and SIGPIPE."""


def exit_code_of(command: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    try:
        code = command(arguments)
        sys.stdout.flush()
        return code
    except ConfigError as error:
        _say(str(error))
        return os.EX_CONFIG
    except CommandError as error:
        _say(f"tidegate: {error}")
        return error.exit_code
    except StorageError as error:
        _say(f"tidegate: {error}")
        return os.EX_IOERR
    except TidegateError as error:
        _say(f"tidegate: {error}")
        return os.EX_TEMPFAIL
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes standard output once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception:  # noqa: BLE001 everything that is left is a bug, and is shown as one
        traceback.print_exc()
        _say("tidegate: this is a bug; please report it with the lines above")
        return os.EX_SOFTWARE


def _say(text: str) -> None:
    print(text, file=sys.stderr)
