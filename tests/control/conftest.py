"""A control socket in front of a gateway whose queue is real."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.control.client import Client
from gateway.control.server import ControlServer
from gateway.testing.gateway import FakeGateway


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[FakeGateway]:
    fake = await FakeGateway.open(tmp_path)
    yield fake
    await fake.queue.close()


@pytest.fixture
async def server(gateway: FakeGateway, tmp_path: Path) -> AsyncIterator[ControlServer]:
    running = ControlServer(gateway, gateway.gateway_id)
    await running.open_socket(tmp_path / "control.sock")
    yield running
    await running.close()


@pytest.fixture
def socket_path(server: ControlServer, tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


@pytest.fixture
def client(socket_path: Path) -> Client:
    """Blocking: call it with asyncio.to_thread."""
    return Client(socket_path)
