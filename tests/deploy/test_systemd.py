"""systemd accepts the unit, finds it well locked up, and the unit fits the program's promises."""

import subprocess
import sys
from pathlib import Path

from gateway.config.secrets import INSTALLED, INSTALLED_PREFIX
from tests.deploy import unit

EXPOSURE_MAX = 15
"""Of 100, as systemd-analyze counts; most of what is left is the network and the serial ports."""


def analyze(*arguments: str) -> str:
    done = subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_systemd_has_no_complaint(tmp_path: Path) -> None:
    runnable = tmp_path / unit.PATH.name
    runnable.write_text(unit.PATH.read_text().replace(unit.exec_start()[0], sys.executable))
    assert not analyze("verify", "--recursive-errors=one", str(runnable))


def test_the_service_is_locked_up() -> None:
    analyze("security", "--offline=true", f"--threshold={EXPOSURE_MAX}", str(unit.PATH))


def test_it_is_started_again_for_years() -> None:
    settings = unit.settings()
    assert settings["Restart"] == ["always"]
    assert settings["StartLimitIntervalSec"] == ["0"]
    assert not {"RestartPreventExitStatus", "StartLimitBurst", "RuntimeMaxSec"} & settings.keys()


def test_secrets_may_be_missing() -> None:
    settings = unit.settings()
    loaded = {value.split(":")[0] for value in settings["LoadCredential"]}
    assert loaded == {value.split(":")[0] for value in settings["SetCredential"]}


def test_commands_in_a_shell_look_for_secrets_where_the_unit_does() -> None:
    assert unit.settings()["LoadCredential"] == [f"{INSTALLED_PREFIX.rstrip('_')}:{INSTALLED}"]


def test_serial_ports_are_open_to_it() -> None:
    settings = unit.settings()
    assert settings["SupplementaryGroups"] == ["dialout"]
    names = ("ttyUSB", "ttyACM", "ttyAMA", "ttyS", "ttySC", "ttyMAX", "ttyXRUSB")
    assert settings["DeviceAllow"] == [f"char-{name} rw" for name in names]
    assert "PrivateDevices" not in settings


def test_modules_that_name_ports_are_there_before_the_names_are_looked_up() -> None:
    settings = unit.settings()
    wanted = set(settings["Wants"][0].split())
    assert {f"modprobe@{name}.service" for name in ("usbserial", "cdc_acm", "sc16is7xx", "max310x")} == wanted
    assert wanted <= set(" ".join(settings["After"]).split())
