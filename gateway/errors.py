"""Every error tidegate raises on purpose. The class says who is to blame and what the framework does.

TidegateError
├── ConfigError            the operator's file is wrong: stop, show every problem
│   └── ConfigUnreadable   there is none, or it may not be read: stop, say where one is looked for
├── DeviceError            a device or its line failed: restart that driver with back-off
├── Refused                the queue can't take it: the driver tells its device to come again
│   ├── QueueFull          at the byte cap or the free-disk floor
│   ├── TooLarge           this record can never fit
│   ├── Unroutable         no topic may have this record, sent again it is refused again
│   └── StorageFailing     the disk failed: nothing is acknowledged any more, the process ends and restarts
├── StorageError           the queue's file can't be opened or used
│   └── StorageUnwritable  its file system takes no writes or has no room for the first ones: wait until somebody has mended it
├── SinkUnavailable        Kafka can't be reached or used now: keep everything, try again
│   └── SinkRefused        Kafka said no (credentials, certificate, ACL): slow back-off, alarm
├── SinkHeld               only an operator may decide: collect, send nothing, alarm
└── CommandError           a CLI command can't be done: one sentence and an exit code
    └── OutputFailed       standard output takes nothing more, or its reader has gone: the command ends

Anything else that escapes is a bug.
"""

from pathlib import Path


class TidegateError(Exception):
    """Base of all errors tidegate raises on purpose."""


class ConfigError(TidegateError):
    """Carries all problems of a configuration, each one line `file:line: path: message`."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class ConfigUnreadable(ConfigError):
    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__([f"{path}: can't be read: {error.strerror}"])
        self.missing = isinstance(error, FileNotFoundError)
        self.not_permitted = isinstance(error, PermissionError)


class DeviceError(TidegateError):
    """A device, its line or its listening address failed; the driver is restarted with back-off."""


class Refused(TidegateError):
    """The queue did not take the records. `retry_after_s` is what a device may be told."""

    retry_after_s: int = 10


class QueueFull(Refused):
    pass


class TooLarge(Refused):
    pass


class Unroutable(Refused):
    """No route takes the record and there is no default topic, or what the record names makes no topic that it may go
    to; `check` names such configurations where it can."""


class StorageFailing(Refused):
    pass


class StorageError(TidegateError):
    pass


class StorageUnwritable(StorageError):
    pass


class SinkUnavailable(TidegateError):
    pass


class SinkRefused(SinkUnavailable):
    pass


class SinkHeld(TidegateError):
    pass


class CommandError(TidegateError):
    """`exit_code` follows sysexits where one fits; 1 otherwise."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class OutputFailed(CommandError):
    """Not an OSError: typer and rich end a process by some of these themselves, with the exit code of a verdict."""
