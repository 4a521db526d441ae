"""[queue]: how much may wait, how soon it is on disk, and what happens when there is no room."""

from dataclasses import dataclass
from typing import Literal

from gateway.settings import Duration, Size, setting


@dataclass(frozen=True, kw_only=True)
class QueueSettings:
    max_bytes: Size = setting(
        2 << 30,
        minimum=4 << 20,
        doc="Disk space the queue may use, write-ahead log included.",
        example='"2 GiB"',
    )
    min_free_bytes: Size = setting(
        512 << 20,
        minimum=0,
        doc="Disk space the queue leaves free for the rest of the system.",
        example='"512 MiB"',
    )
    commit_interval: Duration = setting(
        0.02,
        minimum=0.001,
        maximum=10,
        doc="Shortest time between two commits while devices wait; longer means less wear and later acknowledgements.",
        example='"20 ms"',
    )
    unacked_interval: Duration = setting(
        5.0,
        minimum=0.01,
        maximum=3600,
        doc="Longest time a record that no device waits for stays in memory only: what a power cut may cost.",
        example='"5 s"',
    )
    when_full: Literal["reject", "drop_oldest"] = setting(
        "reject",
        doc="At the cap: refuse new records (devices are told to come again) or drop the oldest undelivered ones.",
    )
