"""Limits that are constants of the program. What an operator may change is a setting of its layer instead."""

RECORD_BYTES_MAX = 1 << 20
"""Body of one record; a driver may set less. Kafka's default max.message.bytes is about as large."""

EMIT_RECORDS_MAX = 10_000
"""Records of one emit call."""

NAME_BYTES_MAX = 1024
"""Channel, device, topic and key, each, in UTF-8."""

RECORD_OVERHEAD_BYTES = 128
"""What a record costs in memory beside its body, about, wherever bytes are limited: many bodies have four bytes, or none."""

MARKS_PER_SCOPE_MAX = 65_536
