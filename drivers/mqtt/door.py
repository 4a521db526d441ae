"""What all connections of a driver share."""

from dataclasses import dataclass

from drivers.mqtt import Config
from drivers.mqtt.access import Access
from drivers.mqtt.protocol import Properties, Property
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

    def offered(self, expiry_s: int) -> Properties:
        """To a client of MQTT 5."""
        return {
            Property.RECEIVE_MAXIMUM: self.config.qos2_in_flight_max,
            Property.MAXIMUM_PACKET_SIZE: self.config.packet_bytes_max,
            Property.SUBSCRIPTION_IDS_AVAILABLE: 0,
            Property.SHARED_SUBSCRIPTIONS_AVAILABLE: 0,
            Property.SESSION_EXPIRY: expiry_s,
        }
