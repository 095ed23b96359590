"""What `cdc check` says of Redis: whether it keeps what it is given, in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from cdc.check.durability import durability_findings
from cdc.transport import ServerFacts
from cdc.wording import size
from transforms.config import TransportConfig
from transforms.finding import Finding
from transforms.redis_server import NEEDED, may_evict

_NEARLY_FULL = 0.75


def transport_findings(facts: ServerFacts, config: TransportConfig) -> Iterator[Finding]:
    """All that can be said."""
    yield Finding("ok", "transport", f"{facts.product} {facts.version} answers")
    if facts.role != "master":
        yield Finding(
            "error",
            "transport",
            f"this server is a {facts.role}: it takes no writes",
            "Name the primary in transport.url.",
        )
    yield from keeping_findings(facts)
    yield from _memory(facts)
    yield from durability_findings(facts, config)


def keeping_findings(facts: ServerFacts) -> Iterator[Finding]:
    """What must be right before a reader may start."""
    if facts.too_old:
        what = f"{facts.product} {facts.version} is too old"
        yield Finding("error", "transport", what, NEEDED)
    if may_evict(facts.eviction):
        verdict: Literal["error", "warning"] = "error" if facts.eviction.startswith("allkeys") else "warning"
        yield Finding(
            verdict, "maxmemory-policy", f"{facts.eviction}: Redis may remove whole streams when memory is short",
            "CONFIG SET maxmemory-policy noeviction",
        )  # fmt: skip
    elif facts.eviction:
        yield Finding("ok", "maxmemory-policy", facts.eviction)


def _memory(facts: ServerFacts) -> Iterator[Finding]:
    if not facts.max_memory:
        yield Finding("ok", "memory", f"{size(facts.used_memory)} in use, no maxmemory")
        return
    told = f"{size(facts.used_memory)} of maxmemory {size(facts.max_memory)} in use"
    if facts.used_memory > _NEARLY_FULL * facts.max_memory:
        yield Finding(
            "warning", "memory", f"{told}: when it is full, nothing is published and the slot holds the WAL",
            f"CONFIG SET maxmemory {2 * facts.max_memory}",
        )  # fmt: skip
    else:
        yield Finding("ok", "memory", told)
