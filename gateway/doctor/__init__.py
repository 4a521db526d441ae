"""What can be wrong with the place a gateway runs at: its clock, its disk, its way to Kafka."""

from gateway.doctor.clock import clock
from gateway.doctor.disk import disk, flush
from gateway.doctor.finding import Finding, Verdict
from gateway.doctor.kafka import kafka
from gateway.doctor.plug import Kept, look, pull

__all__ = ["Finding", "Kept", "Verdict", "clock", "disk", "flush", "kafka", "look", "pull"]
