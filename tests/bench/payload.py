"""The one generator behind every figure: readings of 200 devices with jittered times and floats that vary, by seed."""

import json
import random
from collections.abc import Iterator

DEVICES = 200
START_MS = 1_700_000_000_000


def messages(count: int, seed: int) -> Iterator[tuple[bytes, bytes]]:
    """(MQTT topic, payload), about 120 bytes of payload each."""
    dice = random.Random(seed)
    temperatures = [dice.uniform(15, 30) for _ in range(DEVICES)]
    pressures = [dice.uniform(980, 1030) for _ in range(DEVICES)]
    time_ms = START_MS
    for number in range(count):
        device = dice.randrange(DEVICES)
        temperatures[device] += dice.gauss(0, 0.1)
        pressures[device] += dice.gauss(0, 0.3)
        time_ms += dice.randrange(3)
        reading = {
            "ts": time_ms,
            "device": f"dev-{device}",
            "temperature": round(temperatures[device], 2),
            "pressure": round(pressures[device], 2),
            "humidity": round(dice.uniform(20, 80), 1),
            "battery": 3000 + dice.randrange(600),
            "rssi": -50 - dice.randrange(40),
            "n": number,
        }
        yield b"site/dev-%d/telemetry" % device, json.dumps(reading, separators=(",", ":")).encode()
