"""How a command ends that can't be done: one sentence on standard error, and an exit code of sysexits.h."""

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress

from gateway.cli import stdout
from gateway.errors import CommandError, ConfigError, OutputFailed, StorageError, TidegateError

INTERRUPTED = 130
"""As a shell says it of programs that ended by SIGINT."""


def exit_code_of(command: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    try:
        code = command(arguments)
        sys.stdout.flush()
        return code
    except ConfigError as error:
        _say(str(error))
        return os.EX_CONFIG
    except OutputFailed as error:
        stdout.give_up()
        if error.exit_code != stdout.BROKEN_PIPE:
            _say(f"tidegate: {error}")
        return error.exit_code
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
    except Exception:  # noqa: BLE001 everything that is left is a bug, and is shown as one
        traceback.print_exc()
        _say("tidegate: this is a bug; please report it with the lines above")
        return os.EX_SOFTWARE


def _say(text: str) -> None:
    with suppress(OSError):
        # On the same full disk, say. The exit code is all that is left then.
        print(text, file=sys.stderr)
