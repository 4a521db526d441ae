"""A process with a queue and its sync, to be killed: stores records as fast as it may and tells each that is on disk.

gateway.py FOLDER BOOTSTRAP GATEWAY_ID TOPIC LIFE COUNT
"""

import asyncio
import sys
from pathlib import Path

from gateway.clock import SystemClock
from gateway.codec import Entry, Shape
from gateway.queue import Queue, QueueSettings
from gateway.sync import kafka_sync
from gateway.sync.settings import KafkaSettings

DEVICES = 5


async def main(folder: Path, bootstrap: str, gateway_id: str, topic: str, life: str, count: int) -> None:
    clock = SystemClock()
    queue = await Queue.open(
        folder / "queue.db", QueueSettings(min_free_bytes=0, commit_interval=0.001), clock
    )
    settings = KafkaSettings(bootstrap_servers=[bootstrap], linger=0.01, transaction_timeout=6.0)
    sync = asyncio.create_task(kafka_sync(queue, settings, gateway_id, clock).run())
    shapes = [Shape(topic, b"device-%d" % number, ()) for number in range(DEVICES)]
    for number in range(count):
        body = f"{life}/{number:06}"
        await queue.put([Entry(shapes[number % DEVICES], clock.wall_ms(), body.encode())])
        print(body, flush=True)
    while queue.position("main") < queue.next_seq("main") - 1:  # noqa: ASYNC110 the test has the deadline
        await asyncio.sleep(0.01)
    sync.cancel()
    await asyncio.wait([sync])
    await queue.close()


if __name__ == "__main__":
    _, where, bootstrap, gateway_id, topic, life, count = sys.argv
    asyncio.run(main(Path(where), bootstrap, gateway_id, topic, life, int(count)))
