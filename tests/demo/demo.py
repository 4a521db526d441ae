"""`make demo`: devices deliver through a cut link and a killed gateway into a real Kafka, and a judge says how it went.

The timeline, in quarters of --seconds: devices deliver; the link to Kafka is cut, and after a quarter of outage the
gateway is killed with -9 and started again; the link returns; devices deliver on, and end. When all that waits is in
Kafka, or nothing moves any more, the judge compares the devices' own journals with what a read_committed consumer sees,
and the audit says whether the gateway's numbers are complete.

What is read from devices (tests/demo/field.py) may be lost with the gateway, but only in a window that the judge is told:
from `unacked_interval`, and what a commit on a busy disk may take, before the kill until the gateway was back, which is when it acknowledges something again. All
drivers are started before that, so that the scale is heard.

Exit code 0: clean. 1: not clean, or something ended by itself. 2: no Kafka to run with.
"""

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from gateway.testing.kafka import KafkaBroker
from tests.demo.plant import START_S, Plant, conclude, play
from tests.demo.screen import Screen


class Demo:
    def __init__(self, options: argparse.Namespace, screen: Screen) -> None:
        self._options = options
        self._screen = screen

    async def run(self, kafka: KafkaBroker, folder: Path) -> bool:
        """Whether the verdict is clean. Raises Ended."""
        self._plant = Plant(kafka, folder, self._screen)
        async with self._plant.set_up():
            await self._timeline(self._plant)
            verdict, audited = await self._plant.verdict()
        return conclude(self._screen, verdict, audited)

    async def _timeline(self, plant: Plant) -> None:
        quarter = self._options.seconds / 4
        await plant.start_field()
        await plant.start_gateway(self._options.sabotage)
        await plant.start_judge()
        await plant.start_devices(self._options.devices, self._options.rate)
        await plant.start_sensors()
        await plant.until(plant.acknowledging(), START_S, "no device gets an acknowledgement")
        plant.tell_field()
        await plant.until(plant.all_flow, START_S, "not every driver's records reach Kafka")
        plant.change("devices deliver")
        await plant.look_on(quarter)
        await plant.link.cut()
        plant.change("the link to Kafka is cut")
        await plant.look_on(quarter)
        await self._kill_and_start(plant, min(2.0, quarter / 4))
        await plant.look_on(quarter - min(2.0, quarter / 4))
        arrived = plant.arrived()
        await plant.link.restore()
        plant.judge.start_clock()
        plant.change("the link is back")
        await plant.look_on(quarter)
        plant.change("devices finish")
        await plant.end_devices()
        await plant.end_the_line()
        plant.change("the queue drains")
        await plant.drain(arrived)

    async def _kill_and_start(self, plant: Plant, pause_s: float) -> None:
        killed = time.monotonic()
        await plant.end_gateway(signal.SIGKILL)
        plant.change("link cut, gateway killed with -9")
        await plant.look_on(pause_s)
        await plant.start_gateway(self._options.sabotage)
        plant.change("link cut, gateway started again")
        await plant.until(plant.acknowledging(), START_S, "no device gets an acknowledgement any more")
        plant.may_lose(killed)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Devices to Kafka through a cut link and a killed gateway, and the verdict."
    )
    parser.add_argument(
        "--seconds", type=float, default=40, help="from the first messages in Kafka to the devices' end"
    )
    parser.add_argument("--devices", type=int, default=40)
    parser.add_argument("--rate", type=float, default=20, help="messages a second of each device")
    parser.add_argument(
        "--sabotage", metavar="MODE", help="a gateway with a fault: see gateway/testing/sabotage.py"
    )
    return parser.parse_args(arguments)


def main() -> int:
    options, screen = parse(sys.argv[1:]), Screen()
    return play("demo", screen, Demo(options, screen).run)


if __name__ == "__main__":
    sys.exit(main())
