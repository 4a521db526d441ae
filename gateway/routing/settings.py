"""[[routes]] and [gateway] default_topic: which topic and key a record gets."""

from dataclasses import dataclass

from gateway.settings import Form, setting


@dataclass(frozen=True, kw_only=True)
class RouteSettings:
    from_: str = setting(
        doc='Name of the driver whose records this route takes; a glob such as "*" is allowed.',
        example='"*"',
    )
    match: str = setting("#", doc="Channels it takes, with MQTT's wildcards + and #.")
    topic: str = setting(
        doc="Kafka topic. May contain the fields that key may.",
        form=Form(
            r"[A-Za-z0-9._{}-]{1,249}",
            "the name of a Kafka topic: letters, digits, dots, underscores, hyphens and fields in braces",
        ),
        example='"telemetry"',
    )
    key: str = setting(
        "{device}",
        doc="Kafka key: {device}, {driver}, {channel}, or {1}, {2}, ... for what the first, second wildcard took.",
    )
