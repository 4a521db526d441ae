"""What is measured. Each scenario returns rows: (what, value, budget)."""

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gateway.clock import SystemClock
from gateway.codec import Entry, Shape
from gateway.queue import Queue, QueueSettings
from gateway.testing.kafka import KafkaBroker, free_ports
from tests.bench import modbus
from tests.bench.payload import messages
from tests.bench.process import Gateway, until
from tests.bench.row import Row

WINDOWS = ((1, 0.02), (20, 0.2), (500, 1.0))
"""Unacknowledged messages of each of 4 publishers, and which share of the full count it gets."""

SLOW_FSYNC_US = 30_000
STRACE = (
    *("strace", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=fdatasync"),
    *("-e", f"inject=fdatasync:delay_enter={SLOW_FSYNC_US}"),
)
NICE = ("nice", "-n", "10")
"""Other gateways have processors of their own; here they must share, and come second."""

PARTITIONS = 6
FLAPPING = 20
WEAR_RATES = (1, 10, 100)


class Bench:
    """`count` records at full speed; the other sizes follow from it. `folder` lies on the disk to be measured."""

    def __init__(self, folder: Path, kafka: KafkaBroker, count: int) -> None:
        self._folder = folder
        self._kafka = kafka
        self._count = count
        self._topics = 0

    def gateway(
        self, name: str, *, kafka: str | None = None, around: Sequence[str] = (), drivers: str = ""
    ) -> Gateway:
        self._topics += 1
        self.topic = self._kafka.create_topic(f"bench-{self._topics}", PARTITIONS)
        return Gateway(
            self._folder / name,
            kafka or self._kafka.bootstrap,
            self.topic,
            free_ports(1)[0],
            id=name,
            around=around,
            drivers=drivers,
        )

    def start(self) -> list[Row]:
        """From the first instruction to the first acknowledgement, and what it then takes to sit there."""
        gateway = self.gateway("idle")
        began = time.monotonic()
        with gateway:
            publish(gateway.port, 1, 1, connections=1)
            started = time.monotonic() - began
            gateway.wait_live()
            gateway.wait_delivered(1)
            time.sleep(2)
            before = gateway.cost()
            time.sleep(10)
            cost = gateway.cost()
        return [
            Row(
                "start to first acknowledged message, publisher's own start included",
                f"{started:.2f} s",
                "0.8 s",
            ),
            Row("idle RSS, MQTT and Kafka", f"{cost.rss_bytes / 1e6:.1f} MB", "45 MB"),
            Row("idle CPU", f"{(cost.cpu_s - before.cpu_s) * 10:.2f} %"),
        ]

    def full_way(self) -> list[Row]:
        """Device to fsync to Kafka exactly once, Kafka and publishers on the same cores."""
        rows = []
        with self.gateway("full-way") as gateway:
            gateway.wait_live()
            publish(gateway.port, self._count // 5, 500)  # the broker's code gets warm
            for window, share in WINDOWS:
                gateway.wait_delivered(gateway.stored())
                rows += self._window(gateway, window, int(self._count * share), f"window {window}")
        return rows

    def slow_disk(self) -> list[Row]:
        rows = []
        with self.gateway("slow-disk", around=STRACE) as gateway:
            gateway.wait_live()
            for window, share in WINDOWS:
                gateway.wait_delivered(gateway.stored())
                count = int(self._count * share / 5)
                rows += self._window(gateway, window, count, f"fdatasync takes 30 ms more, window {window}")
        return rows

    def _window(self, gateway: Gateway, window: int, count: int, name: str) -> list[Row]:
        before, stored = gateway.cost(), gateway.stored()
        sent = gateway.status()["link"]["bytes_sent"]
        result = publish(gateway.port, count, window)
        total = int(result["messages"])
        gateway.wait_delivered(stored + total)
        seconds = time.time() - result["began_at"]
        cost = gateway.cost().since(before)
        sent = gateway.status()["link"]["bytes_sent"] - sent
        full = window == 500 and "30 ms" not in name
        return [
            Row(f"{name}: acknowledged", f"{total / result['seconds']:,.0f} records/s"),
            Row(f"{name}: PUBACK", f"p50 {result['p50_ms']:.1f} ms, p99 {result['p99_ms']:.1f} ms"),
            Row(f"{name}: in Kafka", f"{total / seconds:,.0f} records/s", "60,000/s" if full else ""),
            Row(f"{name}: CPU", f"{cost.cpu_s / total * 1e6:.1f} us a record", "8 us, aim 5" if full else ""),
            Row(
                f"{name}: bytes to disk a payload byte",
                f"{cost.written_bytes / result['payload_bytes']:.2f}",
                "0.5" if full else "",
            ),
            Row(
                f"{name}: bytes to Kafka a payload byte",
                f"{sent / result['payload_bytes']:.2f}",
                "0.3" if full else "",
            ),
        ]

    def drain(self) -> list[Row]:
        """The link returns after an outage: stored in full segments, and one record a segment."""
        rows = []
        for name, count, group, budget in (
            ("drain", self._count * 2, 800, "80,000/s"),
            ("drain-singly", self._count // 5, 1, "30,000/s"),
        ):
            gateway = self.gateway(name)
            asyncio.run(fill(self._folder / name / "data", self.topic, count, group))
            with gateway:
                idle = gateway.cost()
                peak, first, began = idle.rss_bytes, 0, 0.0
                while (delivered := gateway.delivered()) < count:
                    if delivered and not first:
                        first, began = delivered, time.monotonic()
                    peak = max(peak, gateway.cost().rss_bytes)
                    time.sleep(0.05)
                seconds = time.monotonic() - began
                cost = gateway.cost().since(idle)
            how = f"draining {count:,} records, {group} a segment"
            rows += [
                Row(how, f"{(count - first) / seconds:,.0f} records/s", budget),
                Row(f"{how}: CPU", f"{cost.cpu_s / count * 1e6:.1f} us a record"),
                Row(
                    f"{how}: RSS",
                    f"{(peak - idle.rss_bytes) / 1e6:.0f} MB more",
                    "24 MB more" if group > 1 else "",
                ),
            ]
        return rows

    def visible(self) -> list[Row]:
        """Time from PUBLISH until a read_committed consumer has it; then with other gateways dying on its topic."""
        rows = []
        with self.gateway("visible") as gateway:
            gateway.wait_live()
            rows.append(self._see(gateway, "alone", 15))
            with flapping(self._folder / "flapping", self._kafka.bootstrap, self.topic):
                rows.append(self._see(gateway, f"while {FLAPPING} other gateways flap", 40))
        return rows

    def _see(self, gateway: Gateway, name: str, seconds: int) -> Row:
        found = child(
            "tests.bench.visible", gateway.port, self._kafka.bootstrap, self.topic, "--seconds", seconds
        )
        value = f"p50 {found['p50_ms']:.0f} ms, p99 {found['p99_ms']:.0f} ms, max {found['max_ms']:.0f} ms"
        return Row(f"PUBLISH to visible, {name}", value)

    def wear(self) -> list[Row]:
        """Records that nobody waits for; a disk of its own, so that the file system's journal is counted."""
        rows = []
        with own_disk(self._folder) as (folder, written):
            for rate in WEAR_RATES:
                self._topics += 1
                topic = self._kafka.create_topic(f"bench-{self._topics}", PARTITIONS)
                port = free_ports(1)[0]
                with Gateway(
                    folder / str(rate), self._kafka.bootstrap, topic, port, id=f"wear-{rate}"
                ) as gateway:
                    gateway.wait_live()
                    seconds = 60
                    before, began = written(), time.monotonic()
                    publish(port, rate * seconds, 1, connections=1, qos=0, rate=rate)
                    time.sleep(6)
                    day = (written() - before) / (time.monotonic() - began) * 86_400 / 1e6
                    process = gateway.cost().written_bytes
                aim = {1: "300", 10: "400", 100: "800"}[rate]
                rows.append(
                    Row(
                        f"to the block device at {rate} records/s that nobody waits for",
                        f"{day:,.0f} MB/day ({process / 66 * 86_400 / 1e6:,.0f} by the process)",
                        f"aim {aim}",
                    )
                )
        return rows

    def registers(self) -> list[Row]:
        """Modbus TCP units to Kafka, exactly once."""
        folder = self._folder / "registers"
        with (
            modbus.slaves("tcp", folder) as port,
            self.gateway("registers", drivers=modbus.drivers(port)) as gateway,
        ):
            gateway.wait_live()
            gateway.wait_delivered(10 * modbus.TCP_UNITS)
            before, stored, began = gateway.cost(), gateway.stored(), time.monotonic()
            time.sleep(10)
            count, seconds = gateway.stored() - stored, time.monotonic() - began
            cost = gateway.cost().since(before)
            gateway.wait_delivered(stored + count)
        return [
            Row(
                f"TCP, {modbus.TCP_UNITS} units in parallel, 100 registers a request, device to Kafka",
                f"{count / seconds:.0f} requests/s, {1000 * cost.cpu_s / count:.2f} ms CPU a request",
                "0.3 ms",
            )
        ]

    def coap(self) -> list[Row]:
        """Confirmable POSTs from one device, device to fsync."""
        rows = []
        for window, share in ((1, 0.001), (20, 0.02), (100, 0.04)):
            cost = child("tests.bench.coap", "--count", int(self._count * share), "--window", window)
            rows.append(
                Row(
                    f"CoAP, window {window}",
                    f"{cost['cpu_us']:.0f} us CPU a record, {cost['rate']:,.0f} records/s",
                    "500 us",
                )
            )
        bare = child("tests.bench.coap", "--count", int(self._count * 0.001), "--window", 1, "--bare")
        rows.append(
            Row(
                "a bare datagram, a timer, a thread that syncs a page, the answer; one in flight",
                f"{bare['cpu_us']:.0f} us CPU",
                "-",
            )
        )
        return rows


def publish(
    port: int, count: int, window: int, *, connections: int = 4, qos: int = 1, rate: float = 0
) -> Any:
    return child(
        "tests.bench.publish",
        port,
        *("--count", count, "--window", window, "--connections", connections, "--qos", qos, "--rate", rate),
    )


def child(module: str, *arguments: object) -> Any:
    """The JSON object that it prints."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{module}: {done.stderr[-1000:]}")
    return json.loads(done.stdout)


async def fill(folder: Path, topic: str, count: int, group: int) -> None:
    """A backlog as a long outage leaves it."""
    clock = SystemClock()
    settings = QueueSettings(max_bytes=4 << 30, min_free_bytes=0, commit_interval=0.001)
    queue = await Queue.open(folder / "queue.db", settings, clock)
    shapes: dict[bytes, Shape] = {}
    entries: list[Entry] = []
    for channel, payload in messages(count, 1):
        device = channel.split(b"/")[1]
        headers = (("tg.driver", b"floor"), ("tg.device", b"bench"), ("tg.channel", channel))
        entries.append(
            Entry(shapes.setdefault(device, Shape(topic, device, headers)), clock.wall_ms(), payload)
        )
        if len(entries) == group:
            await queue.put(entries)
            entries = []
    if entries:
        await queue.put(entries)
    await queue.close()


@contextmanager
def flapping(folder: Path, bootstrap: str, topic: str) -> Iterator[None]:
    """Gateways on the same topic that are killed and started again all the time, in the middle of transactions."""
    stop = threading.Event()
    threads = [
        threading.Thread(target=flap, args=(folder / str(number), bootstrap, topic, number, stop))
        for number in range(FLAPPING)
    ]
    for thread in threads:
        thread.start()
    try:
        time.sleep(10)
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def flap(folder: Path, bootstrap: str, topic: str, number: int, stop: threading.Event) -> None:
    script = Path(__file__).parent.parent / "sync" / "child.py"
    dice = random.Random(number)
    folder.mkdir(parents=True)
    arguments = [str(folder), bootstrap, f"flapping-{number}", topic, "00", "1000000"]
    while not stop.is_set():
        process = subprocess.Popen(
            [*NICE, sys.executable, str(script), *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        stop.wait(dice.uniform(5, 20))
        process.kill()
        process.wait()


@contextmanager
def own_disk(folder: Path) -> Iterator[tuple[Path, Any]]:
    """(folder on an ext4 of its own, function that tells the bytes written to it). Needs root and loop devices."""
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".img") as image:
        image.truncate(512 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", image.name], check=True)
        mount = folder / "own-disk"
        mount.mkdir()
        subprocess.run(["mount", "-o", "loop,noatime", image.name, str(mount)], check=True)
        try:
            device = os.stat(mount).st_dev
            stat = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat")
            yield mount, lambda: int(stat.read_text().split()[6]) * 512
        finally:
            until(
                lambda: (
                    subprocess.run(["umount", str(mount)], capture_output=True, check=False).returncode == 0
                ),
                10,
                f"{mount} is busy",
            )
