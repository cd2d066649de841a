"""Memory that a process keeps: how often it has to ask the system for pages."""

import platform
import subprocess
import sys

import pytest

import jcnn.memory
from jcnn.memory import keep_memory

FAULTS = """
import resource, jax, jax.numpy as jnp, jcnn
{call}
x = jnp.ones(2**24)  # 64 MiB, 16384 pages
f = jax.jit(lambda x: x + 1)
for _ in range(20):  # until there are as many buffers as are in use at a time
    f(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    f(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(call: str) -> int:
    code = [sys.executable, "-c", FAULTS.format(call=call)]
    return int(subprocess.run(code, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to")
def test_a_process_that_keeps_memory_asks_for_few_pages():
    fresh, kept = faults(""), faults("assert jcnn.keep_memory()")
    assert fresh > 100_000
    assert kept < fresh / 10


def test_without_glibc_nothing_happens(monkeypatch):
    monkeypatch.setattr(jcnn.memory.ctypes, "CDLL", lambda name: object())
    assert keep_memory() is False
