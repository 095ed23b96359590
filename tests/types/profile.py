"""How the properties of this folder are run: the same examples every time in CI, unless a seed is given.

A seed comes from `--hypothesis-seed` or HYPOTHESIS_SEED. Examples are not shrunk: each is a batch whose assertion
names the single values that differ, and a round trip through two servers and two processes costs half a second.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, Verbosity, seed, settings

_given: list[str] = []


def given_seed(option: object) -> None:
    """Take note of `--hypothesis-seed`, which Hypothesis itself heeds when nothing is derandomized."""
    if option is not None:
        _given[:] = [str(option)]


def examples(count: int) -> Callable[[Any], Any]:
    """The settings of a property that sends `count` batches."""
    from_environment = os.environ.get("HYPOTHESIS_SEED")
    chosen = settings(
        max_examples=count,
        derandomize=os.environ.get("CI") in ("1", "true") and not (_given or from_environment),
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        verbosity=Verbosity.quiet,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    if from_environment and not _given:
        return lambda test: chosen(seed(int(from_environment))(test))
    return chosen
