"""One typed model of the configuration; reading, JSON Schema, reference and template all come from it."""

from gateway.config.changes import Changes, changes, kept_until_restart
from gateway.config.drivers import DriverConfig, driver_types, load_manifest, sample
from gateway.config.files import digest_of_files, unusable_files
from gateway.config.model import (
    Config,
    GatewaySettings,
    LogSettings,
    MetricsSettings,
    gateway_section,
    keep_secrets,
    load,
    unreadable_secrets,
    unusable_certificates,
)
from gateway.config.reference import describe, driver_reference, reference, template
from gateway.config.schema import schema

__all__ = [
    "Changes",
    "Config",
    "DriverConfig",
    "GatewaySettings",
    "LogSettings",
    "MetricsSettings",
    "changes",
    "describe",
    "digest_of_files",
    "driver_reference",
    "driver_types",
    "gateway_section",
    "keep_secrets",
    "kept_until_restart",
    "load",
    "load_manifest",
    "reference",
    "sample",
    "schema",
    "template",
    "unreadable_secrets",
    "unusable_certificates",
    "unusable_files",
]
