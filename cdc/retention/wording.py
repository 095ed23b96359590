"""What retention says to people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cdc.retention.judging import Backlog, Holder, Memory
from cdc.wording import size


class Hindrance(NamedTuple):
    """Why publishing waits, or trimming fails, and what mends it."""

    reason: str
    remedy: str


def of_memory(memory: Memory) -> str:
    """`80 MB of maxmemory 100 MB in use`."""
    return f"{size(memory.used)} of maxmemory {size(memory.limit)} in use"


def of_limit(size_bytes: int, limit: int) -> str:
    """`70 MB unread, transport.max_backlog_bytes is 64 MB`."""
    return f"{size(size_bytes)} unread, transport.max_backlog_bytes is {size(limit)}"


def of_holder(holder: Holder) -> str:
    """`sink billing`, `external group audit`."""
    return f"{'sink' if holder.is_sink else 'external group'} {holder.name}"


def to_do(holder: Holder) -> str:
    """What mends it that somebody does not read."""
    start = f"start it, `cdc-sink run {holder.name}`" if holder.is_sink else "have it read on and acknowledge"
    return f"{start}; if it is gone for good: `cdc forget {holder.name}`"


def waiting(blocking: Sequence[tuple[str, Backlog]], limit: int) -> Hindrance:
    """Why publishing waits, and what to do. `blocking`: stream keys, and who is too far behind in each."""
    told = [
        f"{of_holder(backlog.holder)} in {key} ({of_limit(backlog.size_bytes, limit)})" for key, backlog in blocking
    ]
    holders = {backlog.holder.name: backlog.holder for _, backlog in blocking}
    doing = "; ".join(f"{of_holder(holder)}: {to_do(holder)}" for holder in holders.values())
    return Hindrance(f"waits for {', '.join(told)}; the slot keeps the log", f"{doing[0].upper()}{doing[1:]}.")
