"""What was promised to devices and what Kafka has, at one moment of a trace."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from gateway.queue import LANES


class Put(NamedTuple):
    """One call of `put`, in the order of the calls. `through`: the last number of the lane main with it and all before.
    `marks` are (key, value), with None for one that is forgotten."""

    through: int
    marks: tuple[tuple[bytes, bytes | None], ...] = ()
    ledger: tuple[bytes, ...] = ()


@dataclass
class Cluster:
    """One lane as Kafka has it: values by number. `run` gave the number at `position`."""

    position: int = 0
    run: str = ""
    values: dict[int, bytes] = field(default_factory=dict)


@dataclass
class Promises:
    """`values[n - 1]` belongs to number n of main; `retries` says of which older number n is the second try."""

    values: list[bytes] = field(default_factory=list)
    retries: dict[int, int] = field(default_factory=dict)
    puts: list[Put] = field(default_factory=list)
    kept: int = 0
    """So many of `puts` are acknowledged: a commit holds all that were called before it."""
    queue_id: str | None = None
    kafka: dict[str, Cluster] = field(default_factory=lambda: {lane: Cluster() for lane in LANES})
    dead: set[int] = field(default_factory=set)
    notes: list[str | None] = field(default_factory=lambda: [None])
    """What `store` was called with since the last call that returned, that one first."""

    @property
    def acknowledged(self) -> int:
        return self.puts[self.kept - 1].through if self.kept else 0

    def offer(
        self,
        values: tuple[bytes, ...],
        marks: tuple[tuple[bytes, bytes | None], ...] = (),
        ledger: tuple[bytes, ...] = (),
        again: tuple[int, ...] = (),
    ) -> None:
        self.retries |= dict(enumerate(again, len(self.values) + 1))
        self.values += values
        self.puts.append(Put(len(self.values), marks, ledger))

    def withdraw(self) -> None:
        """The last put was refused."""
        self.puts.pop()
        through = self.puts[-1].through if self.puts else 0
        del self.values[through:]
        self.retries = {number: old for number, old in self.retries.items() if number <= through}

    def keep(self, put: int) -> None:
        self.kept = max(self.kept, put + 1)

    def deliver(self, lane: str, position: int, run: str, values: dict[int, bytes]) -> None:
        self.kafka[lane].position, self.kafka[lane].run = position, run
        self.kafka[lane].values |= values

    def at_this_cut(self) -> "Promises":
        """What deliveries after the cut don't change in `self`."""
        return replace(
            self, kafka={lane: replace(one, values=dict(one.values)) for lane, one in self.kafka.items()}
        )

    def marks_after(self, puts: int) -> dict[bytes, bytes]:
        changes = [change for put in self.puts[:puts] for change in put.marks]
        return {key: value for key, value in dict(changes).items() if value is not None}


Event = Callable[[Promises], None]
