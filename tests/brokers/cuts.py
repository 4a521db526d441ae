"""`make cuts`: a cluster and the links to it suffer by seed while a gateway delivers; then every record is counted.

`--full` takes every fault once instead, with outages of ten minutes (`make brokers`); `--fault` only that one, and of connections
that are cut within a request or its answer (N=400 FAULT=cut_within_produce) each byte in turn.
"""

import argparse
import asyncio
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from gateway.testing.cluster import KafkaCluster
from tests import proof
from tests.brokers.faults import FAULTS, Fault, Site
from tests.brokers.links import Links
from tests.brokers.load import Load, Stage, judge

COMMON = ("11", "14", "15")
"""Those take seconds: of a random run they are most."""

RECOVERY_S = 120.0
TRANSACTION_S = 10.0
"""Short, so that what hangs is given up soon; on the slow link a transaction takes half of it."""


def dealt(dice: random.Random, count: int) -> Iterator[Fault]:
    weights = [5 if number in COMMON else 1 for number, _ in FAULTS.values()]
    yield from dice.choices(list(FAULTS), weights, k=count)


async def suffer(
    cluster: KafkaCluster,
    folder: Path,
    deck: Sequence[Fault],
    dice: random.Random,
    command: str,
    *,
    full: bool = False,
    in_turn: bool = False,
) -> list[proof.Row]:
    """One row for each fault. Raises TimeoutError where nothing is delivered any more."""
    gateway_id = f"suffering-{dice.randrange(1 << 16)}"
    topic = await asyncio.to_thread(cluster.create_topic, gateway_id, 3)
    recoveries, stages = [], []
    async with (
        Links.to(cluster) as links,
        Load.on(folder, links.addresses, gateway_id, topic, transaction_timeout=TRANSACTION_S) as load,
    ):
        site = Site(cluster, links, load, gateway_id, dice, full)
        for turn, fault in enumerate(deck, 1):
            print(f"{turn}/{len(deck)} {fault.__name__} ...", end=" ", flush=True)
            first, load.recovery_s = dict(load.told), 0.0
            await fault(site._replace(turn=turn - 1) if in_turn else site)
            await load.flows(RECOVERY_S)
            print(f"delivers after {load.recovery_s:.1f} s", flush=True)
            recoveries.append(load.recovery_s)
            stages.append(Stage(first, dict(load.told)))
            links.forget()
    counts = judge(await asyncio.to_thread(cluster.read, topic), stages)
    return [
        proof.Row(*FAULTS[fault], 1, *count, recovery, command)
        for fault, count, recovery in zip(deck, counts, recoveries, strict=True)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description="Faults of a cluster and its links, and the count.")
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 16))
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--fault", choices=[fault.__name__ for fault in FAULTS])
    options = parser.parse_args()
    dice = random.Random(options.seed)
    command = f"make cuts N={options.n} SEED={options.seed}"
    deck = list(dealt(dice, options.n))
    if options.full:
        command = f"make brokers SEED={options.seed}"
        deck = list(FAULTS)
    elif options.fault:
        command += f" FAULT={options.fault}"
        deck = [fault for fault in FAULTS if fault.__name__ == options.fault] * options.n
    print(command)
    with tempfile.TemporaryDirectory() as name, KafkaCluster(Path(name) / "kafka") as cluster:
        faults = suffer(
            cluster, Path(name), deck, dice, command, full=options.full, in_turn=options.fault is not None
        )
        rows = asyncio.run(faults)
    for row in rows:
        proof.tell(row)
    told, lost, twice = (sum(numbers) for numbers in zip(*(row[3:6] for row in rows), strict=True))
    print(f"{len(rows)} faults, {told:,} records: {lost} lost, {twice} twice, all in order")
    return 1 if lost or twice else 0


if __name__ == "__main__":
    sys.exit(main())
