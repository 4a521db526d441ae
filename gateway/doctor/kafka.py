"""Whether each broker answers, and if not, why."""

import asyncio
from collections.abc import Iterator

from gateway.doctor.finding import Finding, Verdict
from gateway.errors import SinkUnavailable
from gateway.sync.settings import KafkaSettings


def kafka(settings: KafkaSettings) -> Iterator[Finding]:
    # The Kafka client is imported only here: it takes longer than all the other checks.
    from gateway.sync.kafka.connection import ask

    for server in settings.bootstrap_servers:
        try:
            found = asyncio.run(ask(server, settings))
        except SinkUnavailable as error:
            yield Finding("Kafka", Verdict.FAILURE, str(error))
        else:
            text = f"{server} answers: cluster {found.cluster_id}, {found.brokers} brokers"
            yield Finding("Kafka", Verdict.OK, text)
