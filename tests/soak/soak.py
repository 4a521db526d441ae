"""`make soak`: all drivers for as long as one likes, one fault after the other, and the verdict.

The faults are a deck that is shuffled by the seed: the link cut or silent, the gateway killed or told to end, Kafka
ended, killed and started again, the disk filled by others, the clock set to another time. Those that end the gateway come in
the first third only, so that one process lives through the rest: from its samples are the slopes, by which a leak is seen.
"""

import argparse
import asyncio
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from gateway.testing.kafka import KafkaBroker
from tests.demo.plant import DRIVERS, START_S, Plant, conclude, play, prove
from tests.demo.screen import Screen
from tests.queue.full_disk import fill, small_disk
from tests.soak.false_clock import FalseClock
from tests.soak.samples import Samples

DEVICES, RATE = 8, 5.0
DISK_MIB = 96
ROOM = {
    'max_bytes = "256 MiB"': 'max_bytes = "32 MiB"',
    'min_free_bytes = "64 MiB"': 'min_free_bytes = "8 MiB"',
    "[drivers.web]": "[drivers.web]\nidempotency_keys_max = 500",
}
"""What may grow to a limit gets there while the process warms up, or it would look like a leak."""

QUIET_S = (3.0, 12.0)
OUTAGE_S = (1.0, 15.0)
FULL_S = (2.0, 8.0)
ROOM_S = 3.0
"""A gateway that refuses looks for room every second. Before it found any, small records may be taken while larger are not."""

RECOVERY_S = 300.0
PRINT_S = 30.0

Fault = Callable[[], Awaitable[None]]


class Soak:
    def __init__(self, options: argparse.Namespace, screen: Screen) -> None:
        self._options = options
        self._screen = screen
        self._random = random.Random(options.seed)
        self._recovery_s = 0.0
        self._faults = 0

    async def run(self, kafka: KafkaBroker, folder: Path) -> bool:
        self._plant = plant = Plant(kafka, folder, self._screen, DRIVERS, ROOM)
        self._clock = FalseClock(folder / "clock")
        self._samples = Samples(folder / "data")
        with small_disk(folder / "data", DISK_MIB):
            async with plant.set_up():
                try:
                    await self._timeline(plant)
                finally:
                    for line in self._samples.report():
                        self._screen.say(line, "")
                verdict, audited = await plant.verdict()
        command = f"make soak MINUTES={self._options.minutes:g} SEED={self._options.seed}"
        what = "link, gateway, Kafka, disk and clock in turn, all drivers at work"
        prove(verdict, "soak", what, self._faults, self._recovery_s, command)
        return conclude(self._screen, verdict, audited) and not self._samples.leaks()

    async def _timeline(self, plant: Plant) -> None:
        await plant.start_field()
        await self._start_gateway()
        await plant.start_judge()
        await plant.start_devices(DEVICES, RATE)
        await plant.start_sensors()
        await plant.until(plant.acknowledging(), START_S, "no device gets an acknowledgement")
        plant.tell_field()
        await plant.until(plant.all_flow, START_S, "not every driver's records reach Kafka")
        sampling = asyncio.create_task(self._samples.take())
        seconds = self._options.minutes * 60
        began = time.monotonic()
        for fault in self._deck(lambda: time.monotonic() - began < seconds / 3):
            plant.change(fault.__name__.strip("_").replace("_", " "))
            await fault()
            self._faults += 1
            await self._recover(plant)
            if time.monotonic() - began > seconds:
                break
            plant.change("all is well")
            await plant.look_on(self._random.uniform(*QUIET_S))
        sampling.cancel()
        arrived = plant.arrived()
        plant.judge.start_clock()
        plant.change("devices finish")
        await plant.end_devices()
        await plant.end_the_line()
        plant.change("the queue drains")
        await plant.drain(arrived)

    def _deck(self, may_end_the_gateway: Callable[[], bool]) -> Iterator[Fault]:
        gentle: list[Fault] = [
            self._link_cut,
            self._link_silent,
            self._kafka_ended,
            self._kafka_killed,
            self._disk_full,
            self._clock_set,
        ]
        while True:
            ending: list[Fault] = [self._gateway_killed, self._gateway_ended] if may_end_the_gateway() else []
            deck = gentle + ending
            self._random.shuffle(deck)
            for fault in deck:
                if fault not in ending or may_end_the_gateway():
                    yield fault

    async def _recover(self, plant: Plant) -> None:
        """What was there when the fault ended may still be on its way to the judge; something new must follow."""
        began, acknowledging = time.monotonic(), plant.acknowledging()
        await plant.until(acknowledging, START_S, "no device gets an acknowledgement any more")
        accepted = sum(one.accepted for one in plant.counts().values() if not one.served)
        await plant.until(
            lambda: sum(one.in_kafka for one in plant.counts().values() if not one.served) >= accepted,
            RECOVERY_S,
            "Kafka does not get what waits",
        )
        self._recovery_s = max(self._recovery_s, time.monotonic() - began)

    async def _link_cut(self) -> None:
        await self._plant.link.cut()
        await self._plant.look_on(self._random.uniform(*OUTAGE_S))
        await self._plant.link.restore()

    async def _link_silent(self) -> None:
        self._plant.link.black_hole()
        await self._plant.look_on(self._random.uniform(*OUTAGE_S))
        await self._plant.link.restore()

    async def _gateway_killed(self) -> None:
        await self._end_gateway(signal.SIGKILL)

    async def _gateway_ended(self) -> None:
        await self._end_gateway(signal.SIGTERM)

    async def _end_gateway(self, number: signal.Signals) -> None:
        since, starting = time.monotonic(), self._plant.starting()
        await self._plant.end_gateway(number)
        await self._start_gateway()
        await self._plant.until(starting, START_S, "the gateway does not start again")
        acknowledging = self._plant.acknowledging()  # what the last one said may have been noted only now
        await self._plant.until(acknowledging, START_S, "no device gets an acknowledgement any more")
        self._plant.may_lose(since)

    async def _start_gateway(self) -> None:
        process = await self._plant.start_gateway(environment=self._clock.environment)
        self._samples.watch(process.pid)

    async def _kafka_ended(self) -> None:
        await asyncio.to_thread(self._plant.kafka.stop)
        await asyncio.to_thread(self._plant.kafka.start)

    async def _kafka_killed(self) -> None:
        await asyncio.to_thread(self._plant.kafka.kill)
        await asyncio.to_thread(self._plant.kafka.start)

    async def _disk_full(self) -> None:
        since = time.monotonic()
        others = fill(self._plant.folder / "data")
        await self._plant.look_on(self._random.uniform(*FULL_S))
        others.unlink()
        await self._plant.look_on(ROOM_S)
        await self._plant.until(
            self._plant.acknowledging(), START_S, "no device gets an acknowledgement any more"
        )
        self._plant.may_lose(since)

    async def _clock_set(self) -> None:
        self._clock.set(self._random.choice(FalseClock.TIMES))
        await self._plant.look_on(self._random.uniform(*QUIET_S))
        self._clock.set(FalseClock.TRUE)


def main() -> int:
    parser = argparse.ArgumentParser(description="All drivers, faults by seed, and the verdict.")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 16))
    options, screen = parser.parse_args(), Screen(PRINT_S)
    screen.say(f"make soak MINUTES={options.minutes:g} SEED={options.seed}")
    return play("soak", screen, Soak(options, screen).run)


if __name__ == "__main__":
    sys.exit(main())
