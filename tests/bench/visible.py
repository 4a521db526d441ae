"""How long until a read_committed consumer sees a message: publishes with QoS 1 and consumes, prints one JSON object.

visible.py PORT BOOTSTRAP TOPIC --seconds 10
"""

import argparse
import json
import socket
import struct
import threading
import time

from confluent_kafka import Consumer

from tests.bench.publish import connect, frame

INTERVAL_S = 0.02
CHANNEL = b"site/probe/telemetry"


def publish(port: int, stop: threading.Event) -> None:
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(connect(b"probe"))
        client.recv(4)
        number = 0
        while not stop.wait(INTERVAL_S):
            number = number % 65_535 + 1
            head = struct.pack(">H", len(CHANNEL)) + CHANNEL + struct.pack(">H", number)
            client.sendall(frame(0x32, head + b'{"probe": %.6f}' % time.time()))
            client.recv(4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("bootstrap")
    parser.add_argument("topic")
    parser.add_argument("--seconds", type=float, default=10)
    given = parser.parse_args()
    consumer = Consumer(
        {
            "bootstrap.servers": given.bootstrap,
            "group.id": "bench-visible",
            "isolation.level": "read_committed",
            "auto.offset.reset": "latest",
            "fetch.wait.max.ms": 10,
            "log_level": 0,
        }
    )
    consumer.subscribe([given.topic])
    while not consumer.assignment():
        consumer.poll(0.1)
    stop = threading.Event()
    publisher = threading.Thread(target=publish, args=(given.port, stop))
    publisher.start()
    delays: list[float] = []
    end = time.monotonic() + given.seconds
    while time.monotonic() < end:
        message = consumer.poll(0.1)
        value = None if message is None or message.error() else message.value()
        if value is not None and value.startswith(b'{"probe": '):
            delays.append(time.time() - json.loads(value)["probe"])
    stop.set()
    publisher.join()
    consumer.close()
    delays.sort()
    if not delays:
        raise SystemExit("no message became visible")
    print(
        json.dumps(
            {
                "messages": len(delays),
                "p50_ms": delays[len(delays) // 2] * 1000,
                "p99_ms": delays[len(delays) * 99 // 100] * 1000,
                "max_ms": delays[-1] * 1000,
            }
        )
    )


if __name__ == "__main__":
    main()
