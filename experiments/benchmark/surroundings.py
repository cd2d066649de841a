"""The machine and the versions that a benchmark ran with."""

import os
from typing import Any

import jax

import jcnn
from experiments import record

PACKAGES = ("jcnn", "jax", "jaxlib", "numpy", "torch", "flax", "equinox")


def surroundings() -> dict[str, Any]:
    """Hardware, versions and settings."""
    return record.surroundings(*PACKAGES) | {
        "backend": jax.default_backend(),
        "cpu": record.cpu_model(),
        "cores": os.cpu_count(),
        "threads": os.cpu_count(),  # of PyTorch, too
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "compiler_options": jcnn.compiler_options(),
    }
