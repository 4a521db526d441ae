"""Java programs for tests and the demo: what a pom.xml names, fetched by Maven the first time, then kept in the user's cache."""

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path


class JarsError(RuntimeError):
    """Java or what it should run can't be had; one sentence that says what to do."""


def jars(pom: bytes, name: str) -> Path:
    """The directory with the jars of what people call `name`. Raises JarsError."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidegate"
    wanted = cache / f"{name.lower().replace(' ', '-')}-{hashlib.sha256(pom).hexdigest()[:12]}"
    if not shutil.which("java"):
        raise JarsError(f"Java 17 is needed to run {name}: apt install openjdk-17-jre-headless")
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not wanted.exists():
            if not shutil.which("mvn"):
                raise JarsError(f"Maven is needed to fetch {name}: apt install maven")
            _fetch(pom, name, wanted)
    return wanted


def _fetch(pom: bytes, name: str, wanted: Path) -> None:
    partial = wanted.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    (partial / "pom.xml").write_bytes(pom)
    command = [
        *("mvn", "-q", "-B", "-f", str(partial / "pom.xml"), "dependency:copy-dependencies"),
        *(f"-DoutputDirectory={partial}", "-DincludeScope=runtime"),
    ]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = next((line for line in done.stdout.splitlines() if "ERROR" in line), "see mvn's own output")
        raise JarsError(f"Maven could not fetch {name}: {reason}")
    partial.rename(wanted)
