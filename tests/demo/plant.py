"""A gateway, its devices and a judge, each a process of its own: what the demo, `make kills` and `make soak` put through it."""

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Any

from gateway.audit import Report, audit
from gateway.config import load
from gateway.errors import SinkUnavailable
from gateway.sync.settings import KafkaSettings
from gateway.testing.jars import JarsError
from gateway.testing.kafka import BrokerError, KafkaBroker, free_ports
from gateway.testing.proxy import Proxy
from tests import proof
from tests.demo.screen import Counts, Screen, in_words

HERE = Path(__file__).parent
JUDGE = HERE.parent / "judge" / "judge.py"
TOPICS = ("telemetry", "reports", "readings")
PARTITIONS = 6
SENDERS = ("devices", "sensors")
DRIVERS = ("floor", "web", "sensors", "meters", "dryer", "scale", "line")
ACKNOWLEDGED = ("floor", "web", "sensors")
SERVED = ("meters", "dryer", "scale")
TICK_S = 0.1
RUNS = " runs; queue "
"""In the gateway's log, once it does."""

START_S = 120.0
DEVICES_END_S = 60.0
DRAIN_S = 60.0
COMMIT_S = 2.0
"""What a commit on a busy disk may take."""

STILL_S = 2.0
STALLED_S = 10.0
"""The gateway tries to reach Kafka after random waits that grow with the outage; only after a first success counts this."""


class Ended(Exception):
    """It can't go on; the text says why."""


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


def conclude(screen: Screen, verdict: dict[str, Any], audited: Report) -> bool:
    """Show what the two judges say; whether both find nothing wrong."""
    screen.verdict(verdict, audited)
    return bool(verdict["clean"]) and audited.sound


def prove(
    verdict: dict[str, Any], fault: str, what: str, times: int, recovery_s: float, command: str
) -> None:
    """The row of a run in which all drivers' devices were judged."""
    accounts = verdict["drivers"].values()
    accepted, lost, twice = (sum(one[name] for one in accounts) for name in ("accepted", "lost", "twice"))
    proof.tell(proof.Row(fault, what, times, accepted, lost, twice, recovery_s, command))


class Plant:
    """Made by `plant`. `drivers` are those that run, the first of DRIVERS; `changes` replace parts of demo.toml."""

    def __init__(
        self,
        kafka: KafkaBroker,
        folder: Path,
        screen: Screen,
        drivers: Sequence[str] = DRIVERS,
        changes: dict[str, str] | None = None,
    ) -> None:
        self.kafka = kafka
        self.folder = folder
        self.link: Proxy
        self.judge: Judge
        self.journals = Journals(folder / "journals")
        self.children: dict[str, Process] = {}
        self.log = folder / "gateway.log"
        self.unacked_s = 0.0
        self._screen = screen
        self._drivers = drivers
        self._changes = changes or {}
        self._state = "starting"
        self._windows = folder / "windows"
        self._windows.touch()
        self._mqtt, self._http, self._coap, self._modbus = free_ports(4)

    @asynccontextmanager
    async def set_up(self) -> AsyncIterator[None]:
        """Topics, the configuration, the link to Kafka; at the end all processes are ended."""
        for topic in TOPICS:
            self.kafka.create_topic(topic, PARTITIONS)
        self.configure(DRIVERS[len(self._drivers)] if len(self._drivers) < len(DRIVERS) else None)
        self.unacked_s = load(self.folder / "demo.toml").queue.unacked_interval
        async with Proxy(self.kafka.address("proxied"), self.kafka.advertised_port("proxied")) as self.link:
            try:
                with self._screen.live():
                    yield
            finally:
                for child in self.children.values():
                    if child.returncode is None:
                        child.kill()
                    await child.wait()

    async def verdict(self) -> tuple[dict[str, Any], Report]:
        """What the judge says, and the audit."""
        judged = await self.judge.verdict()
        return judged, await audit(KafkaSettings(bootstrap_servers=[self.kafka.bootstrap]))

    def configure(self, without: str | None = None) -> None:
        """demo.toml with this machine's addresses; up to the driver `without`."""
        text = (HERE / "demo.toml").read_text()
        if without is not None:
            text = text.partition(f"[drivers.{without}]")[0]
        addresses = {
            "kafka-1:9092": f"127.0.0.1:{self.kafka.advertised_port('proxied')}",
            "127.0.0.1:1883": f"127.0.0.1:{self._mqtt}",
            "127.0.0.1:8080": f"127.0.0.1:{self._http}",
            "127.0.0.1:5683": f"127.0.0.1:{self._coap}",
            '"127.0.0.1:502"': f'"127.0.0.1:{self._modbus}"',
            "/dev/ttyUSB0": f"{self.folder}/ports/meters",
            "/dev/ttyUSB1": f"{self.folder}/ports/scale",
            "/var/lib/tidegate/line.readings": str(self.folder / "journals" / "line.readings"),
            '"/var/lib/tidegate"': f'"{self.folder}/data"',
        }
        for old, new in (addresses | self._changes).items():
            text = text.replace(old, new)
        (self.folder / "demo.toml").write_text(text)

    async def start_gateway(
        self, sabotage: str | None = None, environment: Mapping[str, str] | None = None
    ) -> Process:
        """`sabotage` as in gateway/testing/sabotage.py."""
        command = [str(Path(sys.executable).with_name("tidegate"))]
        if sabotage is not None:
            command = [sys.executable, "-m", "gateway.testing.sabotage", sabotage]
        command += ["run", "--config", str(self.folder / "demo.toml")]
        with self.log.open("ab") as log:
            return await self._start(
                "gateway", *command, stderr=log, env={**os.environ, **(environment or {})}
            )

    async def start_judge(self) -> None:
        where = ("--bootstrap", self.kafka.bootstrap, "--journals", str(self.folder / "journals"))
        window = ("--kills", str(self._windows), "--unacked", str(self.unacked_s + COMMIT_S))
        command = (sys.executable, str(JUDGE), *where, *window, "--continuous", "--watch", "--json", *TOPICS)
        self.judge = Judge(await self._start("judge", *command, stdin=PIPE, stdout=PIPE))

    async def start_devices(self, count: int, rate: float) -> Process:
        """Half of them publish with QoS 1, a quarter with QoS 2, a quarter posts."""
        quarter = max(1, count // 4)
        where = ("--mqtt", f"127.0.0.1:{self._mqtt}", "--http", f"127.0.0.1:{self._http}")
        counts = ("--qos1", f"{2 * quarter}", "--qos2", f"{quarter}", "--posters", f"{quarter}")
        rest = ("--rate", str(rate), "--journals", str(self.folder / "journals"))
        return await self._start("devices", sys.executable, str(HERE / "devices.py"), *where, *counts, *rest)

    async def start_sensors(self) -> Process:
        where = ("--coap", f"127.0.0.1:{self._coap}", "--journals", str(self.folder / "journals"))
        return await self._start("sensors", sys.executable, str(HERE / "sensor.py"), *where)

    async def start_field(self) -> None:
        """The ports must be there when the gateway starts."""
        where = ("--modbus-tcp", f"127.0.0.1:{self._modbus}", "--ports", str(self.folder / "ports"))
        rest = ("--journals", str(self.folder / "journals"))
        command = (sys.executable, str(HERE / "field.py"), *where, *rest)
        field = await self._start("field", *command, stdin=PIPE, stdout=PIPE)
        assert field.stdout
        with suppress(TimeoutError):
            async with asyncio.timeout(START_S):
                if await field.stdout.readline() == b"ready\n":
                    return
        raise Ended("the devices in the field did not start")

    async def _start(self, name: str, *command: str, **streams: Any) -> Process:
        """It dies with this process."""
        child = await asyncio.create_subprocess_exec(
            "setpriv", "--pdeathsig", "KILL", *command, **{"stdin": DEVNULL, **streams}
        )
        self.children[name] = child
        return child

    async def end_gateway(self, number: signal.Signals) -> int:
        """Its exit code."""
        process = self.children.pop("gateway")
        process.send_signal(number)
        with suppress(TimeoutError):
            async with asyncio.timeout(START_S):
                return await process.wait()
        process.kill()
        raise Ended(f"the gateway did not end by {number.name}{self.last_words()}")

    def tell_field(self) -> None:
        """The scale begins to talk; the second time all that is not acknowledged ends."""
        field = self.children["field"]
        assert field.stdin
        field.stdin.write(b"\n")

    async def end_devices(self) -> None:
        senders = [self.children[name] for name in SENDERS]
        for process in senders:
            process.send_signal(signal.SIGTERM)
        silent: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        if "field" in self.children:
            self.tell_field()
            field = self.children["field"]
            assert field.stdout
            silent = asyncio.ensure_future(field.stdout.readline())
        else:
            silent.set_result(b"")
        await self.until(
            lambda: silent.done() and all(process.returncode is not None for process in senders),
            DEVICES_END_S,
            "devices still wait",
        )
        for name in SENDERS:
            del self.children[name]

    async def end_the_line(self) -> None:
        """The simulated driver would go on for ever: a new configuration without it is read while the gateway runs."""
        self.configure(without="line")
        self.children["gateway"].send_signal(signal.SIGHUP)
        await self.until(
            lambda: "ended: line" in self.log.read_text(), START_S, "the simulated driver did not end"
        )

    def may_lose(self, since: float) -> None:
        """From `since` (monotonic seconds) until now there was no gateway for those whom nobody tells anything."""
        with self._windows.open("a") as file:
            file.write(json.dumps({"killed": since, "back": time.monotonic()}) + "\n")

    def starting(self) -> Callable[[], bool]:
        """Whether a gateway runs that didn't run now."""
        before = self.log.read_text().count(RUNS)
        return lambda: self.log.read_text().count(RUNS) > before

    def acknowledging(self) -> Callable[[], bool]:
        """Whether more was acknowledged than now."""
        self.journals.look()
        before = [self.journals.counts[name] for name in ACKNOWLEDGED]
        return lambda: any(
            self.journals.counts[name] > count for name, count in zip(ACKNOWLEDGED, before, strict=True)
        )

    async def drain(self, arrived: Sequence[int]) -> None:
        """Until all is there and nothing more comes, or until nothing moves any more.

        What devices served may wait for its commit for `unacked_interval`, and some of it went with the gateway. `arrived`
        is what had arrived when the link came back.
        """
        deadline = time.monotonic() + DRAIN_S
        before, moved = self.counts(), time.monotonic()
        while time.monotonic() < deadline:
            await self.look_on(TICK_S)
            now = self.counts()
            if now != before:
                before, moved = now, time.monotonic()
            still = time.monotonic() - moved
            drained = self.judge.said["drained"].values()
            if still > STILL_S + self.unacked_s and not any(one.waiting for one in now.values()):
                return
            if still > STALLED_S and (self.arrived() != arrived or None not in drained):
                return

    def all_flow(self) -> bool:
        return all(one.accepted and one.in_kafka for one in self.counts().values())

    async def until(self, condition: Callable[[], bool], within_s: float, complaint: str) -> None:
        """Raises Ended with the complaint and what there was by then."""
        deadline = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > deadline:
                counts = in_words(self.counts())
                raise Ended(f"{complaint} after {within_s:.0f} s: {counts}{self.last_words()}")
            await self.look_on(TICK_S)

    async def look_on(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            await asyncio.sleep(min(left, TICK_S))
            self.journals.look()
            self._screen.show(self._state, self.counts())
            for name, child in self.children.items():
                if child.returncode is not None and not (name in SENDERS and child.returncode == 0):
                    raise Ended(
                        f"the {name} ended by itself, exit code {child.returncode}{self.last_words()}"
                    )

    def counts(self) -> dict[str, Counts]:
        in_kafka = self.judge.said["in_kafka"]
        told = self.journals.counts
        return {name: Counts(told[name], in_kafka.get(name, 0), name in SERVED) for name in self._drivers}

    def arrived(self) -> list[int]:
        return [one.in_kafka for one in self.counts().values()]

    def change(self, state: str) -> None:
        self._state = state
        self._screen.say(state)

    def last_words(self) -> str:
        lines = self.log.read_text().splitlines()[-10:] if self.log.exists() else []
        return "".join(f"\n    gateway: {line}" for line in lines)


def play(
    name: str, screen: Screen, scenario: Callable[[KafkaBroker, Path], Coroutine[Any, Any, bool]]
) -> int:
    """The exit code: 0 if the scenario says clean, 1 if not or if it could not go on, 2 without a Kafka to run with."""
    folder = Path(tempfile.mkdtemp(prefix=f"tidegate-{name}-"))
    (folder / "journals").mkdir()
    advertised = {"proxied": free_ports(1)[0]}
    try:
        screen.say("Apache Kafka starts; the first time Maven fetches it")
        with KafkaBroker(folder / "kafka", listeners=("plain", "proxied"), advertised=advertised) as kafka:
            clean = asyncio.run(scenario(kafka, folder))
    except (BrokerError, JarsError) as error:
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
