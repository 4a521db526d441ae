"""`make bench`: the figures of the design's table, on this machine, now. No figure fails the run.

bench.py [--count 500000] [--folder /var/tmp] [scenario ...]
"""

import argparse
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table

import gateway
from gateway.testing.kafka import KafkaBroker
from tests.bench import fleet, modbus
from tests.bench.row import Row
from tests.bench.scenarios import Bench

SCENARIOS = ("start", "full_way", "slow_disk", "drain", "visible", "wear", "coap", "registers")
WITHOUT_KAFKA = {"modbus": modbus.rows, "fleet": fleet.rows}


def facts(folder: Path) -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    memory = next(
        line.split()[1] for line in Path("/proc/meminfo").read_text().splitlines() if "MemTotal" in line
    )
    return (
        f"tidegate {gateway.__version__}; {os.cpu_count()} x {model}; {int(memory) / 1e6:.0f} GB; "
        f"Linux {platform.release()}; Python {platform.python_version()}; fdatasync {fdatasync_ms(folder):.2f} ms; "
        f"load before {os.getloadavg()[0]:.1f}"
    )


def fdatasync_ms(folder: Path) -> float:
    """Median of 50 appends of 4 KiB."""
    times = []
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        for _ in range(50):
            file.write(bytes(4096))
            file.flush()
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    return sorted(times)[25] * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenarios", nargs="*", choices=[*SCENARIOS, *WITHOUT_KAFKA, []], default=[])
    parser.add_argument("--count", type=int, default=500_000)
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"))
    given = parser.parse_args()
    console = Console()
    folder = Path(tempfile.mkdtemp(prefix="tidegate-bench-", dir=given.folder))
    console.print(facts(folder))
    table = Table("what", "measured", "budget")
    names = given.scenarios or (*SCENARIOS, *WITHOUT_KAFKA)

    def show(rows: Iterable[Row]) -> None:
        for row in rows:
            table.add_row(*row)
            console.print(f"{row.what}: {row.value}", style="dim")

    try:
        for name in names:
            if name in WITHOUT_KAFKA:
                show(WITHOUT_KAFKA[name]())
        if any(name in SCENARIOS for name in names):
            with KafkaBroker(folder / "kafka") as kafka:
                bench = Bench(folder, kafka, given.count)
                for name in names:
                    if name in SCENARIOS:
                        show(getattr(bench, name)())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    console.print(table)


if __name__ == "__main__":
    main()
