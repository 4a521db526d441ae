"""One typed model of the configuration; reading, JSON Schema, reference and template all come from it."""

from gateway.config.drivers import DriverConfig, driver_types, load_manifest
from gateway.config.model import Config, GatewaySettings, LogSettings, MetricsSettings, load

__all__ = [
    "Config",
    "DriverConfig",
    "GatewaySettings",
    "LogSettings",
    "MetricsSettings",
    "driver_types",
    "load",
    "load_manifest",
]
