"""What a driver's devices did last: for status, so bounded and forgetful."""

from dataclasses import dataclass

DEVICES_MAX = 10_000
"""Devices kept for one driver; the one that came first makes room."""


@dataclass(slots=True)
class Device:
    """`seen_ms` is wall time of the last record, None before the first; `failed_ms` of the last of `failures`."""

    records: int = 0
    failures: int = 0
    seen_ms: int | None = None
    error: str | None = None
    failed_ms: int | None = None


class Devices:
    def __init__(self) -> None:
        self.by_name: dict[str, Device] = {}
        self.forgotten = 0

    def add(self, name: str) -> Device:
        if len(self.by_name) >= DEVICES_MAX:
            del self.by_name[next(iter(self.by_name))]
            self.forgotten += 1
        device = self.by_name[name] = Device()
        return device

    def failing(self) -> int:
        return sum(device.error is not None for device in self.by_name.values())

    def failed(self, name: str, reason: str, now_ms: int) -> None:
        device = self.by_name.get(name) or self.add(name)
        device.failures += 1
        device.error = reason
        device.failed_ms = now_ms
