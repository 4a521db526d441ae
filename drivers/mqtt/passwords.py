"""scrypt is slow on purpose: it runs beside the loop, one password at a time, and no address waits for another's line."""

import asyncio
import hashlib
import hmac
import secrets
from concurrent.futures import ThreadPoolExecutor

SCRYPT_COST = 1 << 14
SCRYPT_MEMORY_MAX = 64 << 20
LINE_MAX = 50
"""Passwords of one address that wait, 0.1 s each on a small board: further ones would not be looked at in time."""


class Busy(Exception):
    """The password was not looked at."""


def hashed(password: str) -> str:
    """What [drivers.NAME.users.USER] takes as password: scrypt:N:r:p:salt:hash (RFC 7914), hexadecimal."""
    salt = secrets.token_bytes(16)
    return (
        f"scrypt:{SCRYPT_COST}:8:1:{salt.hex()}:{_scrypt(password.encode(), SCRYPT_COST, 8, 1, salt).hex()}"
    )


def _scrypt(password: bytes, cost: int, block: int, parallel: int, salt: bytes) -> bytes:
    return hashlib.scrypt(
        password, salt=salt, n=cost, r=block, p=parallel, maxmem=SCRYPT_MEMORY_MAX, dklen=32
    )


def _is_password(password: bytes, stored: str) -> bool:
    _, cost, block, parallel, salt, digest = stored.split(":")
    found = _scrypt(password, int(cost), int(block), int(parallel), bytes.fromhex(salt))
    return hmac.compare_digest(found, bytes.fromhex(digest))


class _Line:
    """Those of one address."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.waiting = 0
        self.wrong = 0


class Passwords:
    """One of each address waits for the thread, its others behind it. A wrong password sends those away: they may come
    again, and who only tries passwords holds no line for long. The thread goes on when a client has gone, so there is no
    second one."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "mqtt-passwords")
        self._lines: dict[str, _Line] = {}

    async def is_right(self, password: bytes, stored: str, address: str) -> bool:
        """Raises Busy."""
        line = self._lines.setdefault(address, _Line())
        if line.waiting >= LINE_MAX:
            raise Busy
        wrong = line.wrong
        line.waiting += 1
        try:
            async with line.turn:
                if line.wrong > wrong:
                    raise Busy
                loop = asyncio.get_running_loop()
                right = await loop.run_in_executor(self._thread, _is_password, password, stored)
                line.wrong += not right
                return right
        finally:
            line.waiting -= 1
            if not line.waiting:
                del self._lines[address]
