"""`make kills`: a gateway under load is killed with -9 again and again at random times, at last it delivers, and is judged.

Half of the kills come up to LOADED_S after something was acknowledged, half of them within STARTING_S of the start,
wherever it is then. Devices that get acknowledgements over MQTT (QoS 1 and 2), HTTP and CoAP send on all the time.
"""

import argparse
import random
import signal
import sys
import time
from pathlib import Path

from gateway.testing.kafka import KafkaBroker
from tests.demo.plant import ACKNOWLEDGED, START_S, Plant, conclude, play, prove
from tests.demo.screen import Screen

DEVICES, RATE = 12, 20.0
STARTING_S = 1.5
LOADED_S = 1.0


class Kills:
    def __init__(self, options: argparse.Namespace, screen: Screen) -> None:
        self._options = options
        self._screen = screen
        self._random = random.Random(options.seed)

    async def run(self, kafka: KafkaBroker, folder: Path) -> bool:
        plant = Plant(kafka, folder, self._screen, ACKNOWLEDGED)
        async with plant.set_up():
            await plant.start_judge()
            await plant.start_devices(DEVICES, RATE)
            await plant.start_sensors()
            for _ in range(self._options.n):
                await self._cycle(plant)
            began = time.monotonic()
            arrived = plant.arrived()
            await plant.start_gateway(self._options.sabotage)
            plant.judge.start_clock()
            await plant.until(lambda: plant.arrived() != arrived, START_S, "nothing reaches Kafka any more")
            recovery_s = time.monotonic() - began
            await plant.end_devices()
            plant.change("the queue drains")
            await plant.drain(arrived)
            verdict, audited = await plant.verdict()
        command = f"make kills N={self._options.n} SEED={self._options.seed}"
        what = "a whole gateway, starting or under load from MQTT, HTTP and CoAP"
        prove(verdict, "1", what, self._options.n, recovery_s, command)
        return conclude(self._screen, verdict, audited)

    async def _cycle(self, plant: Plant) -> None:
        acknowledging = plant.acknowledging()
        await plant.start_gateway(self._options.sabotage)
        if self._random.random() < 0.5:
            await plant.look_on(self._random.uniform(0, STARTING_S))
        else:
            await plant.until(acknowledging, START_S, "no device gets an acknowledgement any more")
            await plant.look_on(self._random.uniform(0, LOADED_S))
        await plant.end_gateway(signal.SIGKILL)


def main() -> int:
    parser = argparse.ArgumentParser(description="kill -9 at random times, and the verdict.")
    parser.add_argument("--n", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 16))
    parser.add_argument("--sabotage", metavar="MODE", help="see gateway/testing/sabotage.py")
    options, screen = parser.parse_args(), Screen()
    screen.say(f"make kills N={options.n} SEED={options.seed}")
    return play("kills", screen, Kills(options, screen).run)


if __name__ == "__main__":
    sys.exit(main())
