"""What a simulated device would answer: values from shapes, the same for the same seed."""

import math
import random
from collections.abc import Mapping

from drivers.simulated import COUNT, Signal
from gateway.record import Value

DIGITS = 3
WALK_STEP = 0.02
UNREAD = "no answer"


class Device:
    def __init__(self, name: str, signals: Mapping[str, Signal], seed: int, dropouts: float) -> None:
        self.name = name
        self._signals = signals
        self._dropouts = dropouts
        self._random = random.Random(f"{seed}/{name}")
        self._phase = self._random.random()
        self._walks = {key: self._random.uniform(signal.low, signal.high) for key, signal in signals.items()}

    def read(self, count: int, time_s: float) -> tuple[dict[str, Value], dict[str, str]]:
        """Values and quality of the reading with this number."""
        values: dict[str, Value] = {COUNT: count}
        quality: dict[str, str] = {}
        for name, signal in self._signals.items():
            value = self._value(name, signal, count, time_s)
            if self._random.random() < self._dropouts:
                quality[name] = UNREAD
            else:
                values[name] = round(value, DIGITS)
        return values, quality

    def _value(self, name: str, signal: Signal, count: int, time_s: float) -> float:
        width = signal.high - signal.low
        match signal.shape:
            case "sine":
                turn = time_s / signal.period + self._phase
                return signal.low + width * (1 + math.sin(2 * math.pi * turn)) / 2
            case "walk":
                step = self._random.gauss(0, WALK_STEP * width)
                self._walks[name] = min(signal.high, max(signal.low, self._walks[name] + step))
                return self._walks[name]
            case "counter":
                return signal.low + (count - 1) % (int(width) + 1)
