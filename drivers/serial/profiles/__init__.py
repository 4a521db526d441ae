"""Protocols that need no description, one a file."""

from collections.abc import Callable
from typing import NamedTuple

from drivers.serial import Check, Frame
from drivers.serial.fields import Reading


class Profile(NamedTuple):
    """`read` gives the kind of a frame ("" where there is one only) and its values. It raises Undescribed."""

    frame: Frame
    check: Check
    read: Callable[[str], tuple[str, Reading]]
