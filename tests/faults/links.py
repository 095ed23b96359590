"""A pipeline whose four links lead through proxies, and what may happen to a link."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from tests.faults.proxy import Proxy, Way
from tests.processes import Pipeline

Fault = Callable[[Proxy, random.Random], None]
"""Happens at once; some last until the proxy is healed."""


def _half_close(way: Way) -> Fault:
    return lambda link, _: link.half_close(way)


def _cut_after(way: Way, *, with_reset: bool) -> Fault:
    return lambda link, dice: link.cut_after(dice.randint(1, 20_000), way, with_reset=with_reset)


def _black_hole(*ways: Way) -> Fault:
    return lambda link, _: link.black_hole(*ways)


FAULTS: Mapping[str, Fault] = {
    "cut": lambda link, _: link.cut(),
    "reset": lambda link, _: link.reset(),
    "half-close to the server": _half_close(Way.UP),
    "half-close to the client": _half_close(Way.DOWN),
    "cut inside what is sent": _cut_after(Way.UP, with_reset=False),
    "cut inside what is answered": _cut_after(Way.DOWN, with_reset=False),
    "reset inside what is sent": _cut_after(Way.UP, with_reset=True),
    "reset inside what is answered": _cut_after(Way.DOWN, with_reset=True),
    "black hole": _black_hole(),
    "black hole for what is sent": _black_hole(Way.UP),
    "black hole for what is answered": _black_hole(Way.DOWN),
    "delay": lambda link, dice: link.delay(dice.uniform(0.01, 0.1)),
    "throttle": lambda link, dice: link.throttle(dice.uniform(20_000, 200_000)),
}

LASTING = frozenset(name for name in FAULTS if name.startswith(("black hole", "delay", "throttle")))
"""Those that last until the proxy is healed."""


@contextmanager
def proxied(shop: Pipeline) -> Iterator[dict[str, Proxy]]:
    """Have the commands of a pipeline that are made from now on go through proxies; by link, `reader to Redis`.

    Its own look at the servers, and the tests', goes past them.
    """
    with ExitStack() as stack:
        links: dict[str, Proxy] = {}

        def through(name: str, made: tuple[Proxy, str]) -> str:
            links[name] = stack.enter_context(made[0])
            return made[1]

        target, url = shop.environment["TARGET_DSN"], shop.redis_url
        reader = {
            "SOURCE_DSN": through("reader to Postgres", Proxy.of_dsn(shop.source_dsn)),
            "REDIS_URL": through("reader to Redis", Proxy.of_url(url)),
        }
        sink = {
            "REDIS_URL": through("sink to Redis", Proxy.of_url(url)),
            "TARGET_DSN": through("sink to Postgres", Proxy.of_dsn(target)),
        }
        shop.detours = {"cdc.cli": reader, "sinks.cli": sink}
        try:
            yield links
        finally:
            shop.detours = {}
