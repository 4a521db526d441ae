"""The queue to Kafka, exactly once: a transaction holds records and the position behind them, and after every crash
the position that Kafka has decides.

`kafka_sync` makes a Sync; its `run` is one task, `status` and `adopt` are for those who look after the gateway.
Importing this package does not import a Kafka client.
"""

import os

from gateway.clock import Clock
from gateway.errors import CommandError
from gateway.queue import Queue
from gateway.sync.hardware import hardware_id
from gateway.sync.lineage import family
from gateway.sync.memory import Memory
from gateway.sync.reconcile import Answer, Assume
from gateway.sync.settings import KafkaSettings
from gateway.sync.standing import Standing
from gateway.sync.status import LinkState, Sent, SyncStatus
from gateway.sync.sync import Sync

__all__ = [
    "Answer",
    "Assume",
    "LinkState",
    "Sent",
    "Sync",
    "SyncStatus",
    "adopt",
    "family",
    "kafka_sync",
    "note_board",
]


async def note_board(queue: Queue, gateway_id: str) -> None:
    """Before anything is stored without a network, perhaps on a card that was copied from another board."""
    standing = _standing(queue, gateway_id)
    standing.pin_what_is_in_doubt()
    await standing.note_board()


async def adopt(queue: Queue, gateway_id: str, answer: Answer | None) -> None:
    """`tidegate adopt` and `fork` while no gateway runs, after `note_board`; a running one is told through Sync.adopt. Raises
    CommandError for a fork of what is no copy."""
    wrong = _standing(queue, gateway_id).why_no_fork() if answer == "fork" else None
    if wrong is not None:
        raise CommandError(wrong, os.EX_DATAERR)
    await Memory(queue).adopt(answer)


def _standing(queue: Queue, gateway_id: str) -> Standing:
    return Standing(queue, Memory(queue), gateway_id, hardware_id(), None)


def kafka_sync(
    queue: Queue,
    settings: KafkaSettings,
    gateway_id: str,
    clock: Clock,
    replaces: str | None = None,
    sent: Sent | None = None,
) -> Sync:
    from gateway.sync.kafka import (
        KafkaSink,
        partition_of,
    )  # a gateway that only checks its file needn't wait for it

    sink = KafkaSink(settings, gateway_id)
    return Sync(queue, sink, settings, gateway_id, clock, partition_of, hardware_id(), replaces, sent)
