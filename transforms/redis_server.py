"""Which servers hold the streams: Redis, and Valkey that came from it."""

from __future__ import annotations

from typing import Final

NEEDED: Final = "Redis 7.0 or Valkey 7.2 is needed."


def is_too_old(product: str, version: str) -> bool:
    """Whether the streams of this product (`Redis`, `Valkey`) and version (`7.2.4`) lack what is needed."""
    needed = (7, 2) if product == "Valkey" else (7, 0)
    return tuple(int(part) for part in version.split(".")[:2]) < needed


def has_waitaof(product: str, version: str) -> bool:
    """Whether such a server can say when something is on its disk."""
    return product == "Valkey" or tuple(int(part) for part in version.split(".")[:2]) >= (7, 2)


def may_evict(policy: str) -> bool:
    """Whether a server with this maxmemory-policy may remove whole streams when memory is short."""
    return policy.startswith(("allkeys", "volatile"))
