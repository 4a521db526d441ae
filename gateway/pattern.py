"""Channel patterns with MQTT's wildcards (MQTT 3.1.1, section 4.7): + is one level, # the rest."""

import re


class Pattern:
    """Raises ValueError for a pattern that MQTT would not take."""

    def __init__(self, text: str) -> None:
        levels = text.split("/")
        if not text or any(("+" in level or "#" in level) and len(level) > 1 for level in levels):
            raise ValueError("a wildcard stands for a whole level: a/+/b, a/#")
        if "#" in levels[:-1]:
            raise ValueError("# stands at the end")
        self.text = text
        self.wildcards = sum(level in ("+", "#") for level in levels)
        expression = "/".join(
            "([^/]*)" if level == "+" else re.escape(level) for level in levels if level != "#"
        )
        if levels[-1] == "#":
            expression += "(?:/(.*))?" if expression else "(.*)"
        self._expression = re.compile(expression, re.DOTALL)

    def match(self, channel: str) -> tuple[str, ...] | None:
        """What each wildcard took, in order; None if the channel doesn't match."""
        found = self._expression.fullmatch(channel)
        return None if found is None else tuple(part or "" for part in found.groups())
