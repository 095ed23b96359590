"""Hypothesis' profile for these tests, and the server's own list of types."""

from __future__ import annotations

import pytest

from tests.types import profile


def pytest_configure(config: pytest.Config) -> None:
    """Tell the profile of `--hypothesis-seed` before the modules that use it are imported."""
    profile.given_seed(config.getoption("--hypothesis-seed", None))
