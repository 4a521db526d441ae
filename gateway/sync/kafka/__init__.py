"""A Sink on Apache Kafka through aiokafka, of which parts are used that are not its public interface.

The version is pinned; tests/sync say what we rely on. What it gets wrong and how that is met here:
a commit succeeds although a batch failed (every answer is awaited first); a rejected batch wedges its partition and an
unknown outcome can't be asked for (a producer is never used again after an error); stop() may hang for ever (its tasks
are ours to cancel); a wrong password looks like a dead host (one connection is tried before).
"""

from gateway.sync.kafka.connection import preflight
from gateway.sync.kafka.sink import KafkaSink, partition_of

__all__ = ["KafkaSink", "partition_of", "preflight"]
