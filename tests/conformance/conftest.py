"""Hundreds of programs are compiled here, which would stay in memory until the end of the run."""

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def forgotten_afterwards():
    yield
    jax.clear_caches()
