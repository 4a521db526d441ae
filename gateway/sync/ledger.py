"""What a gateway says about its own records, delivered like them in the lane "ledger".

A ledger record is a JSON object with "kind", "lane" and "time" (Unix ms of this gateway). "of_queue" is there if it was saved from the damaged
database of that queue, whose numbers it speaks of. The rest depends on kind:

- topics: {"topics": {topic: partitions}, "from_seq": n}: from record n on the lane goes (also) to these topics. Told
  again when a topic has another number of partitions: a key's records may then lie in two of them.
- lost: {"queues": {queue id: last number}}: databases of this gateway id that are gone with all they held undelivered.
- dead: {"first": n, "last": n, "reason": ...}: a record that Kafka will never take lies with the dead letters.
- salvaged: {"queue_id": ..., "through": n}: of what was saved from that queue's damaged database up to n, it had delivered
  what this queue doesn't.
- parted: {"of": ..., "queue_id": ..., "lanes": {lane: {queue id: [n, m]}}, "text": ...}: queue "of" went on from "queue_id". Of each lane,
  numbers up to n are of the queue named, and up to m those that it did deliver.
- note: {"text": ...}: reconciling with Kafka found something worth telling.
- dropped, and what else the queue tells of: see gateway.queue.
"""

from gateway.codec import Shape


def ledger_shape(topic: str, gateway_id: str) -> Shape:
    return Shape(topic, gateway_id.encode(), (("content-type", b"application/json"),))
