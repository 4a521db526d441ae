"""Bodies that come block by block (RFC 7959, 2): bounded in size, in number and in time."""

from collections import Counter
from collections.abc import Callable, Hashable
from typing import NamedTuple

from drivers.coap.protocol import BAD_REQUEST, INCOMPLETE, TOO_LARGE, Problem

IDLE_S = 93
"""MAX_TRANSMIT_WAIT (RFC 7252, 4.8.2): a device has given its block up by then."""


class Budget:
    """Bytes of all bodies that are being received or stored."""

    def __init__(self, bytes_max: int) -> None:
        self._left = bytes_max

    def take(self, count: int) -> bool:
        if count > self._left:
            return False
        self._left -= count
        return True

    def give_back(self, count: int) -> None:
        self._left += count


class Block(NamedTuple):
    """`size` in bytes; every block but the last has it."""

    number: int
    more: bool
    size: int


class Transfer:
    def __init__(self, sender: str) -> None:
        self.sender = sender
        self.body = bytearray()
        self.touched = 0.0


class Transfers:
    """In the order in which they were touched. When all are taken, a sender with fewer gets the oldest of the one with
    the most: no sender keeps the others out."""

    def __init__(
        self, transfers_max: int, body_bytes_max: int, budget: Budget, monotonic: Callable[[], float]
    ) -> None:
        self._transfers_max = transfers_max
        self._body_bytes_max = body_bytes_max
        self._budget = budget
        self._monotonic = monotonic
        self._transfers: dict[Hashable, Transfer] = {}

    def __len__(self) -> int:
        return len(self._transfers)

    def take(
        self, sender: str, key: Hashable, block: Block, payload: bytes, announced: int = 0
    ) -> bytes | None:
        """The body with its last block, None before. `announced` is Size1. Raises Problem, which ends the transfer."""
        now = self._monotonic()
        self._forget_idle(now)
        transfer = self._transfers.pop(key, None)
        if transfer is not None and block.number == 0:
            self._budget.give_back(len(transfer.body))
            transfer = None
        try:
            if block.number == 0:
                transfer = self._begin(sender)
            if transfer is None or len(transfer.body) != block.number * block.size:
                raise Problem(INCOMPLETE, "a block is missing: begin again with block 0")
            self._append(transfer, block, payload, announced)
        except Problem:
            if transfer is not None:
                self._budget.give_back(len(transfer.body))
            raise
        if block.more:
            transfer.touched = now
            self._transfers[key] = transfer
            return None
        self._budget.give_back(len(transfer.body))
        return bytes(transfer.body)

    def _begin(self, sender: str) -> Transfer:
        if len(self._transfers) >= self._transfers_max:
            counts = Counter(transfer.sender for transfer in self._transfers.values())
            [(greediest, most)] = counts.most_common(1)
            if most <= counts[sender] + 1:  # taking one would only turn the two around
                raise Problem(
                    TOO_LARGE, f"{self._transfers_max} block-wise transfers at a time, not more: come again"
                )
            self._end(next(key for key, transfer in self._transfers.items() if transfer.sender == greediest))
        return Transfer(sender)

    def _append(self, transfer: Transfer, block: Block, payload: bytes, announced: int) -> None:
        if len(payload) > block.size or (block.more and len(payload) < block.size):
            raise Problem(BAD_REQUEST, "the block has not the size that its option says")
        check_size(max(announced, len(transfer.body) + len(payload)), self._body_bytes_max)
        if not self._budget.take(len(payload)):
            raise Problem(TOO_LARGE, "too many bodies at a time: come again")
        transfer.body += payload

    def _forget_idle(self, now: float) -> None:
        while self._transfers:
            key, transfer = next(iter(self._transfers.items()))
            if now < transfer.touched + IDLE_S:
                return
            self._end(key)

    def _end(self, key: Hashable) -> None:
        self._budget.give_back(len(self._transfers.pop(key).body))


def check_size(size: int, bytes_max: int) -> None:
    """Raises Problem."""
    if size > bytes_max:
        raise Problem(TOO_LARGE, f"a body has at most {bytes_max} bytes", size1=bytes_max)
