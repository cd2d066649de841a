"""Runs the tests in float64, on two devices, compiled quickly rather than well."""

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
