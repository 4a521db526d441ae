"""The whole configuration, read from one TOML file and checked as a whole."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gateway.config.certificates import unusable
from gateway.config.drivers import DriverConfig
from gateway.config.kinds import INVALID, PORT_MAX
from gateway.config.listeners import clashes
from gateway.config.report import Place, Report
from gateway.config.secrets import keep, unreadable
from gateway.config.source import Source
from gateway.config.tables import TableKind
from gateway.errors import ConfigError
from gateway.queue.settings import QueueSettings
from gateway.routing import problems as routing_problems
from gateway.routing.settings import RouteSettings
from gateway.settings import NAME, TOPIC, Address, Form, setting
from gateway.sync.settings import KafkaSettings


@dataclass(frozen=True, kw_only=True)
class GatewaySettings:
    id: str = setting(
        doc="Name of this gateway, different from every other on the same Kafka cluster; part of its producer's identity.",
        form=NAME,
        example='"plant-7"',
    )
    data_dir: Path = setting(
        Path("/var/lib/tidegate"),
        doc="Folder of the queue and the control socket, on a disk that honours flush; "
        "a relative path begins at the folder of the configuration file.",
    )
    replaces: str | None = setting(
        None,
        doc="Board whose card this one takes over, as `tidegate status` or the log of the held gateway names it: "
        "a planned swap then needs no `tidegate adopt`.",
        form=Form(r"(soc|balena):[A-Za-z0-9._-]{1,64}", 'the name of a board, "soc:..." or "balena:..."'),
        example='"soc:100000003d1a2b4c"',
    )
    default_topic: str | None = setting(
        None,
        doc="Kafka topic of records that no route takes. Without it, every channel needs a route.",
        form=TOPIC,
        example='"unrouted"',
    )


@dataclass(frozen=True, kw_only=True)
class LogSettings:
    level: Literal["debug", "info", "warning", "error"] = setting(
        "info", doc="Least important messages to log."
    )
    format: Literal["text", "json"] = setting("text", doc="Lines for people, or one JSON object a line.")


@dataclass(frozen=True, kw_only=True)
class MetricsSettings:
    listen: Address | None = setting(
        None,
        doc="Address to serve Prometheus metrics on; always there on the control socket.",
        example='"127.0.0.1:9464"',
        dual_stack=False,
    )


@dataclass(frozen=True, kw_only=True)
class Config:
    gateway: GatewaySettings = setting(doc="Who this gateway is and where it keeps its data.")
    queue: QueueSettings = setting(doc="The queue on disk.")
    kafka: KafkaSettings = setting(doc="The cluster that records go to.")
    log: LogSettings = setting(doc="What is logged, to standard error.")
    metrics: MetricsSettings = setting(doc="Metrics for Prometheus.")
    drivers: dict[str, DriverConfig] = setting(factory=dict, doc="Where records come from, by name.")
    routes: list[RouteSettings] = setting(
        factory=list, doc="Which topic and key records get; the first route that takes a record wins."
    )


def load(path: Path) -> Config:
    """Raises ConfigError with every problem there is. Secrets are not read yet; see `unreadable_secrets`."""
    report = Report(Source(path))
    sections = TableKind(Config).fields(report.source.data, Place(report))
    _check_whole(sections, report)
    if report.count:
        raise ConfigError(report.problems)
    return Config(**sections)


def gateway_section(path: Path) -> GatewaySettings | None:
    """[gateway] of a file that has mistakes; None if there are some in this section too. Raises ConfigError if it isn't TOML."""
    report = Report(Source(path))
    settings = TableKind(Config).fields(report.source.data, Place(report))["gateway"]
    return settings if isinstance(settings, GatewaySettings) else None


def unreadable_secrets(config: Config) -> list[tuple[str, str]]:
    """Secrets that can't be read here and now, as (path, why)."""
    return [problem for path, settings in _parts(config) for problem in unreadable(settings, path)]


def keep_secrets(config: Config) -> None:
    """Read them now: the process is about to become a user who may not."""
    for _, settings in _parts(config):
        keep(settings)


def unusable_certificates(config: Config) -> list[tuple[str, str]]:
    """TLS files that are missing or not what they should be, here and now, as (path, why)."""
    return [problem for path, settings in _parts(config) for problem in unusable(settings, path)]


def _parts(config: Config) -> Iterator[tuple[str, Any]]:
    yield "kafka", config.kafka
    for name, driver in config.drivers.items():
        yield f"drivers.{name}", driver.settings


def _check_whole(sections: Mapping[str, Any], report: Report) -> None:
    """What no single field can tell. Parts with problems of their own are passed over."""
    drivers = sections["drivers"] if isinstance(sections["drivers"], dict) else {}
    sound = {name: driver for name, driver in drivers.items() if driver is not INVALID}
    for name in drivers:
        if not NAME.fits(name):
            report.add(("drivers", name), f"a driver must have {NAME.words}")
    for name, driver in sound.items():
        for where, message in driver.manifest.problems(driver.settings):
            report.add_at(f"drivers.{name}.{where}" if where else f"drivers.{name}", message)
    for where, message in _route_problems(sections, drivers):
        report.add_at(where, message)
    kafka = sections["kafka"]
    if kafka is not INVALID:
        for where, message in _kafka_problems(kafka):
            report.add_at(where, message)
    listening = {
        "metrics": sections["metrics"],
        **{f"drivers.{name}": one.settings for name, one in sound.items()},
    }
    for where, message in clashes({name: one for name, one in listening.items() if one is not INVALID}):
        report.add_at(where, message)


def _kafka_problems(kafka: KafkaSettings) -> Iterator[tuple[str, str]]:
    if len(kafka.own_topics) == 1:
        yield "kafka.ledger_topic", "is the positions_topic; they need a topic each"
    for index, server in enumerate(kafka.bootstrap_servers):
        port = int(server.rpartition(":")[2])
        if not 1 <= port <= PORT_MAX:
            yield (
                f"kafka.bootstrap_servers[{index}]",
                f"port {port} is out of range; must be between 1 and {PORT_MAX}",
            )


def _route_problems(sections: Mapping[str, Any], drivers: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    routes, gateway, kafka = sections["routes"], sections["gateway"], sections["kafka"]
    if (
        gateway is INVALID
        or not isinstance(routes, list)
        or INVALID in routes
        or not isinstance(sections["drivers"], dict)
    ):
        return
    channels = {
        name: None if driver is INVALID else driver.manifest.channels(driver.settings)
        for name, driver in drivers.items()
    }
    reserved = frozenset() if kafka is INVALID else kafka.own_topics
    for where, message in routing_problems(routes, channels, gateway.default_topic, reserved):
        # What a driver with problems will emit isn't known.
        if not any(where == f"drivers.{name}" and driver is INVALID for name, driver in drivers.items()):
            yield where, message
