"""The machine and the versions that a benchmark ran with."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

import jcnn

PACKAGES = ("jcnn", "jax", "jaxlib", "numpy", "torch", "flax", "equinox")


def surroundings() -> dict[str, Any]:
    """Hardware and versions."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return {
        "versions": found,
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "threads": os.cpu_count(),  # of PyTorch, too
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "compiler_options": jcnn.compiler_options(),
    }


def cpu_model() -> str:
    """The processor's name, as Linux knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
