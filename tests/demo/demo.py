"""`make demo`: devices deliver through a cut link and a killed gateway into a real Kafka, and a judge says how it went.

The timeline, in quarters of --seconds: devices deliver; the link to Kafka is cut, and after a quarter of outage the
gateway is killed with -9 and started again; the link returns; devices deliver on, and end. When all that waits is in
Kafka, or nothing moves any more, the judge compares the devices' own journals with what a read_committed consumer sees,
and the audit says whether the gateway's numbers are complete.

What is read from devices (tests/demo/field.py) may be lost with the gateway, but only in a window that the judge is told:
from `unacked_interval` before the kill until the gateway was back, which is when it acknowledges something again. All
drivers are started before that, so that the scale is heard.

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
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from gateway.audit import audit
from gateway.config import load
from gateway.errors import SinkUnavailable
from gateway.sync.settings import KafkaSettings
from gateway.testing.kafka import BrokerError, KafkaBroker, free_ports
from gateway.testing.proxy import Proxy
from tests.demo.screen import Counts, Screen

HERE = Path(__file__).parent
JUDGE = HERE.parent / "judge" / "judge.py"
TOPICS = ("telemetry", "reports", "readings")
PARTITIONS = 6
SENDERS = ("devices", "sensors")
DRIVERS = ("floor", "web", "sensors", "meters", "dryer", "scale", "line")
ACKNOWLEDGED = ("floor", "web", "sensors")
SERVED = ("meters", "dryer", "scale")
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
    """How many messages each driver's devices were told of, or served. Reads only what is new."""

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
        self._kills = folder / "kills"
        self._mqtt, self._http, self._coap, self._modbus = free_ports(4)
        self._unacked_s = 0.0
        self._children: dict[str, Process] = {}

    async def run(self) -> bool:
        """Whether the verdict is clean. Raises Ended."""
        for topic in TOPICS:
            self._kafka.create_topic(topic, PARTITIONS)
        self._configure()
        self._unacked_s = load(self._folder / "demo.toml").queue.unacked_interval
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
        field = await self._start_field()
        await self._start_gateway()
        judge = self._judge = Judge(await self._start_judge())
        devices = [await self._start_devices(), await self._start_sensors()]
        await self._until(self._acknowledging(), START_S, "no device gets an acknowledgement")
        self._tell(field)
        await self._until(self._all_flow, START_S, "not every driver's records reach Kafka")
        self._change("devices deliver")
        await self._look_on(quarter)
        await link.cut()
        self._change("the link to Kafka is cut")
        await self._look_on(quarter)
        await self._kill_and_start(min(2.0, quarter / 4))
        await self._look_on(quarter - min(2.0, quarter / 4))
        arrived = self._arrived()
        await link.restore()
        judge.start_clock()
        self._change("the link is back")
        await self._look_on(quarter)
        await self._end_devices(devices, field)
        await self._end_the_line()
        self._change("the queue drains")
        await self._drain(arrived)
        return judge

    async def _kill_and_start(self, pause_s: float) -> None:
        killed = time.monotonic()
        self._children.pop("gateway").kill()
        self._change("link cut, gateway killed with -9")
        await self._look_on(pause_s)
        await self._start_gateway()
        self._change("link cut, gateway started again")
        await self._until(self._acknowledging(), START_S, "no device gets an acknowledgement any more")
        kill = {"killed": killed, "back": time.monotonic()}
        self._kills.write_text(json.dumps(kill) + "\n")

    async def _end_devices(self, senders: Sequence[Process], field: Process) -> None:
        self._change("devices finish")
        for process in senders:
            process.send_signal(signal.SIGTERM)
        self._tell(field)
        assert field.stdout
        silent = asyncio.create_task(field.stdout.readline())
        await self._until(
            lambda: silent.done() and all(process.returncode is not None for process in senders),
            DEVICES_END_S,
            "devices still wait",
        )
        for name in SENDERS:
            del self._children[name]

    def _tell(self, field: Process) -> None:
        """The scale begins to talk; the second time all that is not acknowledged ends."""
        assert field.stdin
        field.stdin.write(b"\n")

    def _acknowledging(self) -> Callable[[], bool]:
        """Whether more was acknowledged than now."""
        before = [self._journals.counts[name] for name in ACKNOWLEDGED]
        return lambda: any(
            self._journals.counts[name] > count for name, count in zip(ACKNOWLEDGED, before, strict=True)
        )

    def _configure(self, without: str | None = None) -> None:
        """demo.toml with this machine's addresses; up to the line `without`."""
        text = (HERE / "demo.toml").read_text().partition(without or "\0")[0]
        for old, new in (
            ("kafka-1:9092", f"127.0.0.1:{self._kafka.advertised_port('proxied')}"),
            ("127.0.0.1:1883", f"127.0.0.1:{self._mqtt}"),
            ("127.0.0.1:8080", f"127.0.0.1:{self._http}"),
            ("127.0.0.1:5683", f"127.0.0.1:{self._coap}"),
            ('"127.0.0.1:502"', f'"127.0.0.1:{self._modbus}"'),
            ("/dev/ttyUSB0", f"{self._folder}/ports/meters"),
            ("/dev/ttyUSB1", f"{self._folder}/ports/scale"),
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
        window = ("--kills", str(self._kills), "--unacked", str(self._unacked_s))
        command = (sys.executable, str(JUDGE), *where, *window, "--continuous", "--watch", "--json", *TOPICS)
        return await self._start("judge", *command, stdin=PIPE, stdout=PIPE)

    async def _start_devices(self) -> Process:
        """Half of them publish with QoS 1, a quarter with QoS 2, a quarter posts."""
        quarter = max(1, self._options.devices // 4)
        where = ("--mqtt", f"127.0.0.1:{self._mqtt}", "--http", f"127.0.0.1:{self._http}")
        counts = ("--qos1", f"{2 * quarter}", "--qos2", f"{quarter}", "--posters", f"{quarter}")
        rest = ("--rate", str(self._options.rate), "--journals", str(self._folder / "journals"))
        command = (sys.executable, str(HERE / "devices.py"), *where, *counts, *rest)
        return await self._start("devices", *command)

    async def _start_sensors(self) -> Process:
        where = ("--coap", f"127.0.0.1:{self._coap}", "--journals", str(self._folder / "journals"))
        return await self._start("sensors", sys.executable, str(HERE / "sensor.py"), *where)

    async def _start_field(self) -> Process:
        """The ports must be there when the gateway starts."""
        where = ("--modbus-tcp", f"127.0.0.1:{self._modbus}", "--ports", str(self._folder / "ports"))
        rest = ("--journals", str(self._folder / "journals"))
        command = (sys.executable, str(HERE / "field.py"), *where, *rest)
        field = await self._start("field", *command, stdin=PIPE, stdout=PIPE)
        assert field.stdout
        with suppress(TimeoutError):
            async with asyncio.timeout(START_S):
                if await field.stdout.readline() == b"ready\n":
                    return field
        raise Ended("the devices in the field did not start")

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

    async def _drain(self, arrived: Sequence[int]) -> None:
        """Until all is there and nothing more comes, or until nothing moves any more.

        What devices served may wait for its commit for `unacked_interval`, and some of it went with the gateway. `arrived`
        is what had arrived when the link came back.
        """
        deadline = time.monotonic() + DRAIN_S
        before, moved = self._counts(), time.monotonic()
        while time.monotonic() < deadline:
            await self._look_on(TICK_S)
            now = self._counts()
            if now != before:
                before, moved = now, time.monotonic()
            still = time.monotonic() - moved
            drained = self._judge.said["drained"].values()
            if still > STILL_S + self._unacked_s and not any(one.waiting for one in now.values()):
                return
            if still > STALLED_S and (self._arrived() != arrived or None not in drained):
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
                if child.returncode is not None and not (name in SENDERS and child.returncode == 0):
                    raise Ended(
                        f"the {name} ended by itself, exit code {child.returncode}{self._last_words()}"
                    )

    def _counts(self) -> dict[str, Counts]:
        in_kafka = self._judge.said["in_kafka"]
        told = self._journals.counts
        return {name: Counts(told[name], in_kafka.get(name, 0), name in SERVED) for name in DRIVERS}

    def _arrived(self) -> list[int]:
        return [one.in_kafka for one in self._counts().values()]

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
