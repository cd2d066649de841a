"""Runs the tests in float64, on two devices, compiled quickly rather than well."""

import gc
import os
from importlib import metadata

# Without fusion emitters, programs compile in half of the time. If most optimisations are disabled as well,
# jax 0.10.2 gets some wrong. XLA ends the process at a flag that it does not know.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=2"
    + " --xla_cpu_use_fusion_emitters=false" * metadata.version("jaxlib").startswith("0.10.")
)

import jax

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_traceback_in_locations_limit", 0)  # a tenth of the time of compiling small programs


def pytest_collection_finish():
    """Spares the garbage collector all that modules have made, another twentieth."""
    gc.collect()
    gc.freeze()
