"""What all connections of a driver share."""

from dataclasses import dataclass

from drivers.mqtt import Config
from drivers.mqtt.access import Access
from drivers.mqtt.room import Room
from drivers.mqtt.sessions import Sessions
from drivers.mqtt.subscribers import Subscribers
from gateway.clock import Clock
from gateway.driver import Emit


@dataclass(frozen=True)
class Door:
    name: str
    config: Config
    clock: Clock
    emit: Emit
    access: Access
    sessions: Sessions
    subscribers: Subscribers
    room: Room
