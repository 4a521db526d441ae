"""Speaks to the control socket of a running gateway. Blocking: the command line has nothing else to do."""

import http.client
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

from gateway.control import address
from gateway.control.contents import Contents
from gateway.control.transfer import Imported
from gateway.control.wire import StoredRecord, from_json, record_from_json
from gateway.errors import CommandError
from gateway.queue import Buried
from gateway.runtime.status import Status, Verification
from gateway.sync import Answer

T = TypeVar("T")

TIMEOUT_S = 30.0
VERIFY_TIMEOUT_S = 3600.0
READ_BYTES = 256 << 10
EXIT_CODES = {404: os.EX_NOINPUT, 409: os.EX_DATAERR, 503: os.EX_UNAVAILABLE, 507: os.EX_UNAVAILABLE}
"""Of a command that gets this answer."""


class Client:
    """Methods raise CommandError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def status(self) -> Status:
        return self._typed(Status, "/status")

    def verify(self) -> Verification:
        return self._typed(Verification, "/verify", VERIFY_TIMEOUT_S)

    def metrics(self) -> str:
        return self._get("/metrics").decode()

    def tail(
        self, driver: str | None, device: str | None, begun: Callable[[], None] = lambda: None
    ) -> Iterator[Mapping[str, Any]]:
        """What is accepted once `begun` was called, until the gateway ends, which is an error.

        The keys are those of /tail; "lost" counts records left out before.
        """
        query = {name: value for name, value in (("driver", driver), ("device", device)) if value is not None}
        with self._request("GET", "/tail", query, timeout_s=None) as response:
            begun()
            for line in response:
                yield json.loads(line)
        raise CommandError(
            f"{self._path}: the gateway has ended, or given up a reader as slow as this", os.EX_UNAVAILABLE
        )

    def contents(self) -> Contents:
        return self._typed(Contents, "/queue")

    def peek(self, lane: str, after: int | None, limit: int) -> list[StoredRecord]:
        query = {"lane": lane, "limit": str(limit), **({} if after is None else {"after": str(after)})}
        with self._request("GET", "/queue/peek", query) as response:
            return [record_from_json(fields) for fields in json.loads(response.read())]

    def export(self) -> Iterator[bytes]:
        """Chunks of frames; see gateway.control.transfer."""
        with self._request("GET", "/queue/export") as response:
            while chunk := response.read1(READ_BYTES):
                yield chunk

    def import_part(self, file: str, start: int, transfer: bytes) -> Imported:
        query = {"file": file, "start": str(start)}
        with self._request("POST", "/queue/import", query, transfer) as response:
            return Imported(**json.loads(response.read()))

    def dead(self, limit: int) -> list[Buried]:
        with self._request("GET", "/queue/dead", {"limit": str(limit)}) as response:
            return [Buried(**one) for one in json.loads(response.read())]

    def dead_record(self, row_id: int) -> StoredRecord:
        with self._request("GET", "/queue/dead/record", {"id": str(row_id)}) as response:
            return record_from_json(json.loads(response.read()))

    def retry(self, ids: list[int]) -> int:
        with self._request("POST", "/queue/dead/retry", body=json.dumps({"ids": ids}).encode()) as response:
            return int(json.loads(response.read())["retried"])

    def adopt(self, answer: Answer | None) -> None:
        with self._request("POST", "/adopt", body=json.dumps({"assume": answer}).encode()) as response:
            response.read()

    def _typed(self, cls: type[T], path: str, timeout_s: float = TIMEOUT_S) -> T:
        data = json.loads(self._get(path, timeout_s))
        try:
            return from_json(cls, data)
        except (KeyError, TypeError, ValueError) as error:
            raise CommandError(
                f"the gateway is another version than this command: {error}", os.EX_PROTOCOL
            ) from error

    def _get(self, path: str, timeout_s: float = TIMEOUT_S) -> bytes:
        with self._request("GET", path, timeout_s=timeout_s) as response:
            return response.read()

    @contextmanager
    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float | None = TIMEOUT_S,
    ) -> Iterator[http.client.HTTPResponse]:
        connection = _Connection(self._path, timeout_s)
        try:
            connection.request(method, f"{path}?{urlencode(query)}" if query else path, body)
            response = connection.getresponse()
            if response.status != http.client.OK:
                raise _refusal(response)
            yield response
        except PermissionError as error:
            raise _not_permitted(self._path) from error
        except TimeoutError as error:
            raise CommandError(f"{self._path}: the gateway doesn't answer", os.EX_UNAVAILABLE) from error
        except (OSError, http.client.HTTPException) as error:
            raise CommandError(
                f"{self._path}: the connection to the gateway broke", os.EX_UNAVAILABLE
            ) from error
        finally:
            connection.close()


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float | None) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        with address.short(self._path) as name:
            self.sock.connect(name)


def _refusal(response: http.client.HTTPResponse) -> CommandError:
    try:
        message = str(json.loads(response.read())["error"])
    except (ValueError, KeyError, TypeError):
        message = f"the gateway answered {response.status} {response.reason}"
    return CommandError(message, EXIT_CODES.get(response.status, 1))


def running(gateway_id: str, data_dir: Path) -> Client | None:
    """The client of the gateway if one runs. Raises CommandError."""
    for path in address.candidates(gateway_id, data_dir):
        try:
            if address.answers(path):
                return Client(path)
        except PermissionError as error:
            raise _not_permitted(path) from error
    return None


def _not_permitted(path: Path) -> CommandError:
    return CommandError(f"{path}: not permitted; be root, or in the group of this file", os.EX_NOPERM)
