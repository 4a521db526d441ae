"""Which topic and key a record gets, decided once per (driver, channel, device) and remembered.

Users see one lane, `main`, so no two routes can send one topic and key over two lanes.
"""

from gateway.routing.router import Router, hidden, problems
from gateway.routing.settings import RouteSettings

__all__ = ["RouteSettings", "Router", "hidden", "problems"]
