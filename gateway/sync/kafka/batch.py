"""Our record batch as aiokafka takes it: instead of its BatchBuilder, whose methods these are."""

from functools import partial

from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from aiokafka.record.util import calc_crc32c

from gateway.sync.record_batch import RecordBatch

ZSTD_LEVEL = 1
"""Higher ones cost more time and, with batches of a few hundred kilobytes of such records, save nothing."""

CODECS = {
    "none": None,
    "gzip": (1, gzip_encode),
    "snappy": (2, snappy_encode),
    "lz4": (3, lz4_encode),
    "zstd": (4, partial(zstd_encode, level=ZSTD_LEVEL)),
}
"""Their numbers in a batch's attributes."""


class ProducerBatch:
    """Encoded when the producer's id and the partition's next sequence number are known."""

    def __init__(self, batch: RecordBatch, compression: str, transactional: bool) -> None:
        self._batch = batch
        self._codec = CODECS[compression]
        self._transactional = transactional
        self._producer = (-1, -1)
        self._base_sequence = -1
        self._data: bytes | None = None

    def closed(self) -> bool:
        return True

    def close(self) -> None:
        """It is."""

    def record_count(self) -> int:
        return self._batch.records

    def size(self) -> int:
        """As it was sent, if it was."""
        return self._batch.size if self._data is None else len(self._data)

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        self._producer, self._base_sequence = (producer_id, producer_epoch), base_sequence

    def _build(self) -> bytes:
        if self._data is None:
            self._data = self._batch.encode(
                self._producer, self._base_sequence, self._codec, self._transactional, calc_crc32c
            )
        return self._data
