"""Memory for packets that have not come whole, over all connections."""

FREE_BYTES = 4096
"""Of each connection, so that one which sends small packets is never closed for what others do."""

ROOM_BYTES = 16 << 20


class Room:
    def __init__(self) -> None:
        self._taken = 0

    def change(self, before: int, after: int) -> bool:
        """A connection keeps `after` bytes instead of `before`; whether there was room for it."""
        self._taken += max(0, after - FREE_BYTES) - max(0, before - FREE_BYTES)
        return after <= max(before, FREE_BYTES) or self._taken <= ROOM_BYTES
