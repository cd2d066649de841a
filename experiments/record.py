"""What is written down beside a result: by what, on what and when; and how it is written."""

import datetime
import json
import os
import platform
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from experiments.data import UserError


def surroundings(*packages: str) -> dict[str, Any]:
    """Versions of Python and `packages`, hardware and date; a package that is not there is "absent"."""
    devices = jax.devices()
    cpu = devices[0].platform == "cpu"
    return {
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
        "device": devices[0].device_kind,
        "hardware": f"{os.cpu_count()} cores of {cpu_model()}"
        if cpu
        else f"{len(devices)} {devices[0].device_kind}",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def cpu_model() -> str:
    """The processor's name, as Linux knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def write_json(path: Path, content: Any) -> None:
    """At one stroke: the file is there and whole, or it is not there.

    Raises:
        UserError: it cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix="partial-") as scratch:
            written = Path(scratch, path.name)
            written.write_text(json.dumps(content, indent=2, default=str, allow_nan=False) + "\n", "utf-8")
            written.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from None


def cannot_write(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: got no file ({error.strerror}), expected one; make space, then use --resume")
