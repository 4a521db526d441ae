"""`make demo`: devices deliver through a cut link and a killed gateway into a real Kafka, and a judge says how it went.

The timeline, in quarters of --seconds: devices deliver; the link to Kafka is cut, and after a quarter of outage the
gateway is killed with -9 and started again; the link returns; devices deliver on, and end. When all that waits is in
Kafka, or nothing moves any more, the judge compares the devices' own journals with what a read_committed consumer sees,
and the audit says whether the gateway's numbers are complete.

Exit code 0: clean. 1: not clean, or something ended by itself. 2: no Kafka to run with.
"""

import argparse
import asyncio
import json
import shutil
import signal
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from gateway.audit import audit
from gateway.errors import SinkUnavailable
from gateway.sync.settings import KafkaSettings
from gateway.testing.kafka import BrokerError, KafkaBroker, free_ports
from gateway.testing.proxy import Proxy
from tests.demo.screen import Counts, Screen

HERE = Path(__file__).parent
JUDGE = HERE.parent / "judge" / "judge.py"
TOPICS = ("telemetry", "reports", "readings")
PARTITIONS = 6
DRIVERS = ("floor", "web", "line")
TICK_S = 0.25
START_S = 30.0
DEVICES_END_S = 60.0
DRAIN_S = 60.0
STILL_S = 2.0
STALLED_S = 10.0
"""The gateway tries to reach Kafka after random waits that grow with the outage; only after a first success counts this."""


class Ended(Exception):
    """The demo can't go on; the text says why."""


class Journals:
    """How many messages each driver's devices were told of. Reads only what is new."""

    def __init__(self, folder: Path) -> None:
        self.counts = dict.fromkeys(DRIVERS, 0)
        self._folder = folder
        self._files: dict[Path, IO[bytes]] = {}

    def look(self) -> None:
        for path in self._folder.iterdir():
            if path not in self._files:
                self._files[path] = path.open("rb")
        for path, file in self._files.items():
            self.counts[path.name.split("-")[0].split(".")[0]] += file.read().count(b"\n")


class Judge:
    """The process of tests/judge/judge.py, looking on."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.said: dict[str, Any] = {"in_kafka": {}, "drained": {}}
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        assert self.process.stdout
        async for line in self.process.stdout:
            self.said = json.loads(line)

    def start_clock(self) -> None:
        assert self.process.stdin
        self.process.stdin.write(b"now\n")

    async def verdict(self) -> dict[str, Any]:
        assert self.process.stdin
        self.process.stdin.close()
        await self._listening
        if await self.process.wait() not in (0, 1):
            raise Ended("the judge could not judge")
        return self.said


class Demo:
    def __init__(self, options: argparse.Namespace, kafka: KafkaBroker, folder: Path, screen: Screen) -> None:
        self._options = options
        self._kafka = kafka
        self._folder = folder
        self._screen = screen
        self._state = "starting"
        self._journals = Journals(folder / "journals")
        self._mqtt, self._http = free_ports(2)
        self._children: dict[str, Process] = {}

    async def run(self) -> bool:
        """Whether the verdict is clean. Raises Ended."""
        for topic in TOPICS:
            self._kafka.create_topic(topic, PARTITIONS)
        self._configure()
        try:
            async with Proxy(self._kafka.address("proxied"), self._kafka.advertised_port("proxied")) as link:
                with self._screen.live():
                    judge = await self._timeline(link)
                verdict = await judge.verdict()
                audited = await audit(KafkaSettings(bootstrap_servers=[self._kafka.bootstrap]))
        finally:
            for child in self._children.values():
                if child.returncode is None:
                    child.kill()
                await child.wait()
        self._screen.verdict(verdict, audited)
        return bool(verdict["clean"]) and audited.sound

    async def _timeline(self, link: Proxy) -> Judge:
        quarter = self._options.seconds / 4
        await self._start_gateway()
        judge = self._judge = Judge(await self._start_judge())
        devices = await self._start_devices()
        await self._until(self._all_flow, START_S, "not every driver's records reach Kafka")
        self._change("devices deliver")
        await self._look_on(quarter)
        await link.cut()
        self._change("the link to Kafka is cut")
        await self._look_on(quarter)
        self._children.pop("gateway").kill()
        self._change("link cut, gateway killed with -9")
        await self._look_on(min(2.0, quarter / 4))
        await self._start_gateway()
        self._change("link cut, gateway started again")
        await self._look_on(quarter - min(2.0, quarter / 4))
        await link.restore()
        judge.start_clock()
        self._change("the link is back")
        await self._look_on(quarter)
        devices.send_signal(signal.SIGTERM)
        self._change("devices finish")
        await self._until(lambda: devices.returncode is not None, DEVICES_END_S, "devices still wait")
        del self._children["devices"]
        await self._end_the_line()
        self._change("the queue drains")
        await self._drain()
        return judge

    def _configure(self, without: str | None = None) -> None:
        """demo.toml with this machine's addresses; up to the line `without`."""
        text = (HERE / "demo.toml").read_text().partition(without or "\0")[0]
        for old, new in (
            ("kafka-1:9092", f"127.0.0.1:{self._kafka.advertised_port('proxied')}"),
            ("127.0.0.1:1883", f"127.0.0.1:{self._mqtt}"),
            ("127.0.0.1:8080", f"127.0.0.1:{self._http}"),
            ("/var/lib/tidegate/line.readings", str(self._folder / "journals" / "line.readings")),
            ('"/var/lib/tidegate"', f'"{self._folder}/data"'),
        ):
            text = text.replace(old, new)
        (self._folder / "demo.toml").write_text(text)

    async def _start_gateway(self) -> None:
        sabotaged = (sys.executable, "-m", "gateway.testing.sabotage", self._options.sabotage)
        honest = (str(Path(sys.executable).with_name("tidegate")),)
        command = sabotaged if self._options.sabotage else honest
        with (self._folder / "gateway.log").open("ab") as log:
            await self._start(
                "gateway", *command, "run", "--config", str(self._folder / "demo.toml"), stderr=log
            )

    async def _start_judge(self) -> Process:
        where = ("--bootstrap", self._kafka.bootstrap, "--journals", str(self._folder / "journals"))
        command = (sys.executable, str(JUDGE), *where, "--continuous", "--watch", "--json", *TOPICS)
        return await self._start("judge", *command, stdin=PIPE, stdout=PIPE)

    async def _start_devices(self) -> Process:
        """Half of them publish with QoS 1, a quarter with QoS 2, a quarter posts."""
        quarter = max(1, self._options.devices // 4)
        where = ("--mqtt", f"127.0.0.1:{self._mqtt}", "--http", f"127.0.0.1:{self._http}")
        counts = ("--qos1", f"{2 * quarter}", "--qos2", f"{quarter}", "--posters", f"{quarter}")
        rest = ("--rate", str(self._options.rate), "--journals", str(self._folder / "journals"))
        command = (sys.executable, str(HERE / "devices.py"), *where, *counts, *rest)
        return await self._start("devices", *command)

    async def _start(self, name: str, *command: str, **streams: Any) -> Process:
        """It dies with the demo."""
        child = await asyncio.create_subprocess_exec(
            "setpriv", "--pdeathsig", "KILL", *command, **{"stdin": DEVNULL, **streams}
        )
        self._children[name] = child
        return child

    async def _end_the_line(self) -> None:
        """The simulated driver would go on for ever: a new configuration without it is read while the gateway runs."""
        self._configure(without="[drivers.line]")
        self._children["gateway"].send_signal(signal.SIGHUP)
        log = self._folder / "gateway.log"
        await self._until(
            lambda: "ended: line" in log.read_text(), START_S, "the simulated driver did not end"
        )

    async def _drain(self) -> None:
        """Until all is there and nothing more comes, or until nothing moves any more."""
        deadline = time.monotonic() + DRAIN_S
        before, moved = self._counts(), time.monotonic()
        progressed = False
        while time.monotonic() < deadline:
            await self._look_on(TICK_S)
            now = self._counts()
            if now != before:
                before, moved, progressed = now, time.monotonic(), True
            still = time.monotonic() - moved
            drained = self._judge.said["drained"].values()
            if still > STILL_S and not any(one.waiting for one in now.values()):
                return
            if still > STALLED_S and (progressed or None not in drained):
                return

    def _all_flow(self) -> bool:
        return all(one.accepted and one.in_kafka for one in self._counts().values())

    async def _until(self, condition: Callable[[], bool], within_s: float, complaint: str) -> None:
        deadline = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > deadline:
                raise Ended(f"{complaint} after {within_s:.0f} s{self._last_words()}")
            await self._look_on(TICK_S)

    async def _look_on(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            await asyncio.sleep(min(left, TICK_S))
            self._journals.look()
            self._screen.show(self._state, self._counts())
            for name, child in self._children.items():
                if child.returncode is not None and not (name == "devices" and child.returncode == 0):
                    raise Ended(
                        f"the {name} ended by itself, exit code {child.returncode}{self._last_words()}"
                    )

    def _counts(self) -> dict[str, Counts]:
        in_kafka = self._judge.said["in_kafka"]
        return {name: Counts(self._journals.counts[name], in_kafka.get(name, 0)) for name in DRIVERS}

    def _change(self, state: str) -> None:
        self._state = state
        self._screen.say(state)

    def _last_words(self) -> str:
        lines = (self._folder / "gateway.log").read_text().splitlines()[-10:]
        return "".join(f"\n    gateway: {line}" for line in lines)


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
    options = parse(sys.argv[1:])
    screen = Screen()
    folder = Path(tempfile.mkdtemp(prefix="tidegate-demo-"))
    (folder / "journals").mkdir()
    advertised = {"proxied": free_ports(1)[0]}
    try:
        screen.say("Apache Kafka starts; the first time Maven fetches it")
        with KafkaBroker(folder / "kafka", listeners=("plain", "proxied"), advertised=advertised) as kafka:
            clean = asyncio.run(Demo(options, kafka, folder, screen).run())
    except BrokerError as error:
        screen.say(str(error), "bold red")
        return 2
    except KeyboardInterrupt:
        clean = False
    except (Ended, SinkUnavailable) as error:
        screen.say(str(error), "bold red")
        clean = False
    if clean:
        shutil.rmtree(folder)
    else:
        screen.say(f"journals, database and logs are in {folder}", "")
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
