"""Everything the gateway says about itself, as plain data."""

from dataclasses import dataclass

from gateway.queue import QueueStats
from gateway.runtime.supervisor import DriverHealth
from gateway.runtime.wear import WearStatus
from gateway.sync import SyncStatus


@dataclass(frozen=True)
class DeviceStatus:
    records: int
    failures: int
    seen_ms: int | None
    error: str | None
    failed_ms: int | None


@dataclass(frozen=True)
class DriverStatus:
    """`accepted` is what devices were told, counted by the driver; `stored` what reached the disk; `events` what else it
    counts. All since the start."""

    type: str
    health: DriverHealth
    stored: int
    accepted: int
    devices: dict[str, DeviceStatus]
    devices_forgotten: int
    events: dict[str, int]


@dataclass(frozen=True)
class LossWindows:
    """What a power cut may cost, in seconds of records. Acknowledged records are on disk: none. The others wait for
    the next commit, and that takes as long as the slowest one yet."""

    acknowledged_s: float
    unacknowledged_s: float


@dataclass(frozen=True)
class Status:
    """Times are wall time in Unix ms, ages are by the monotonic clock: `up_s` is right also where NTP came in between.
    `drain_s`: at the present rate; None while nothing is delivered."""

    version: str
    gateway_id: str
    queue_id: str
    run_id: str
    pid: int
    now_ms: int
    up_s: float
    drivers: dict[str, DriverStatus]
    queue: QueueStats
    oldest_ms: int | None
    drain_s: float | None
    link: SyncStatus
    wear: WearStatus
    loss: LossWindows
    needs_restart: tuple[str, ...]


@dataclass(frozen=True)
class LaneLaw:
    """stored = pending + delivered + dead + dropped, each from its own source.

    stored: numbers given; pending: records decoded from the disk; delivered: counted from Kafka's answers; dead: the
    letters' table; dropped: the gaps table and what was counted when their positions were known.
    """

    stored: int
    pending: int
    delivered: int
    dead: int
    dropped: int

    @property
    def holds(self) -> bool:
        return self.stored == self.pending + self.delivered + self.dead + self.dropped


@dataclass(frozen=True)
class Verification:
    """`accepted` by the drivers can be less than `stored` by them: a device left before it was told."""

    lanes: dict[str, LaneLaw]
    accepted: int
    stored: int

    @property
    def holds(self) -> bool:
        return self.accepted <= self.stored and all(law.holds for law in self.lanes.values())
