"""What Prometheus may read beside the counters that live where they are counted."""

from collections.abc import Callable

import gateway
from gateway.metrics import Metrics
from gateway.queue import LANES, Queue
from gateway.runtime.supervisor import Supervisor
from gateway.runtime.wear import Wear
from gateway.sync import LinkState, Sync


def describe_process(
    metrics: Metrics, started_ms: int, needs_restart: Callable[[], bool], oldest_s: Callable[[], float]
) -> None:
    gauge = metrics.gauge
    gauge("tidegate_info", "Always 1.", lambda: 1, version=gateway.__version__)
    gauge(
        "process_start_time_seconds",
        "Unix time of the start, by the clock of then.",
        lambda: started_ms / 1000,
    )
    gauge(
        "tidegate_needs_restart",
        "1 while a setting is changed that only a restart brings in.",
        lambda: int(needs_restart()),
    )
    gauge(
        "tidegate_oldest_record_seconds",
        "Age of the oldest record that waits, 0 if none does. By wall time: where the clock is set, it moves by as much.",
        oldest_s,
    )


def describe_driver(metrics: Metrics, supervisor: Supervisor) -> None:
    """Again after each new Supervisor of the same name: the newest is read."""
    driver = supervisor.settings.name
    metrics.gauge(
        "tidegate_driver_running",
        "1 while the driver runs, 0 between a failure and the next try.",
        lambda: int(supervisor.health.running),
        driver=driver,
    )
    metrics.total(
        "tidegate_driver_restarts_total",
        "Tries after a failure.",
        lambda: supervisor.health.restarts,
        driver=driver,
    )
    metrics.gauge(
        "tidegate_devices_failing",
        "Devices whose last news is a failure.",
        supervisor.emit.devices.failing,
        driver=driver,
    )


def describe_queue(metrics: Metrics, queue: Queue) -> None:
    """Once, before anything moves. What the disk remembers of earlier processes is not counted: after a kill it lags behind
    until Kafka was asked, and a counter that falls by a few is taken for one that began anew and went that far."""
    began = queue.stats().lanes
    for lane in LANES:
        for name, doc in (
            ("stored", "Records stored since the start."),
            ("delivered", "Records that Kafka has committed, as far as was learned since the start."),
            ("dead", "Records put aside since the start, because Kafka will never take them."),
        ):
            metrics.total(
                f"tidegate_queue_{name}_total",
                doc,
                lambda lane=lane, name=name: (  # type: ignore[misc]
                    getattr(queue.stats().lanes[lane], name) - getattr(began[lane], name)
                ),
                lane=lane,
            )
        for name, doc in (
            (
                "dropped",
                "Records deleted to make room, by all that is known now: falls if Kafka turns out to have some of them.",
            ),
            ("pending", "Records that wait."),
            ("pending_bytes", "Payload bytes that wait, estimated."),
        ):
            metrics.gauge(
                f"tidegate_queue_{name}",
                doc,
                lambda lane=lane, name=name: getattr(queue.stats().lanes[lane], name),  # type: ignore[misc]
                lane=lane,
            )
    gauge = metrics.gauge
    gauge("tidegate_queue_used_bytes", "Disk space in use.", lambda: queue.stats().used_bytes)
    gauge("tidegate_queue_max_bytes", "Disk space the queue may use.", lambda: queue.stats().max_bytes)
    gauge("tidegate_disk_free_bytes", "Free space on the disk.", lambda: queue.stats().disk_free_bytes)
    metrics.total("tidegate_commits_total", "Commits since the start.", lambda: queue.stats().commits)
    gauge(
        "tidegate_refusing", "1 while devices are refused.", lambda: int(queue.stats().refusing is not None)
    )


def describe_link(metrics: Metrics, sync: Sync) -> None:
    """Again after each new Sync: the newest is read."""
    gauge = metrics.gauge
    for state in LinkState:
        gauge(
            "tidegate_link_state",
            "1 for the state that the link to Kafka is in.",
            lambda state=state: int(sync.status().state is state),  # type: ignore[misc]
            state=state.value,
        )
    gauge(
        "tidegate_link_alarm", "1 while an operator must act.", lambda: int(sync.status().alarm is not None)
    )
    gauge(
        "tidegate_parked_topics",
        "Topics that can't be written; their records wait.",
        lambda: len(sync.status().parked),
    )
    metrics.total(
        "tidegate_sent_bytes_total",
        "Bytes sent to Kafka since the start.",
        lambda: sync.status().bytes_sent,
    )
    metrics.total(
        "tidegate_transactions_total",
        "Transactions committed since the start.",
        lambda: sync.status().transactions,
    )


def describe_wear(metrics: Metrics, wear: Wear) -> None:
    metrics.total(
        "tidegate_written_bytes_total",
        "Bytes that this process wrote to disk.",
        lambda: wear.status().process_bytes,
    )
