"""What is said of mapped events that nobody has published: a name written wrong, or a reader that is still to start."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from typing import NamedTuple


class Wait(NamedTuple):
    """What a worker waits for before it can begin, and what ends that."""

    reason: str
    remedy: str


def as_written(label: str) -> str:
    """An event as `[sinks.NAME.tables]` names it: `customer`, `customer.v2`."""
    return label.removesuffix(".v1")


def nearest(label: str, known: Collection[str], mapped: Collection[str]) -> str | None:
    """The published event that may have been meant: another version of it, or a name like it. Labels.

    One that the sink maps already was not meant.
    """
    by_type: dict[str, list[str]] = {}
    for other in sorted(set(known) - set(mapped)):
        by_type.setdefault(_type(other), []).append(other)
    type_ = _type(label)
    close = [type_] if type_ in by_type else difflib.get_close_matches(type_, by_type, 1)
    if not close:
        return None
    found = by_type[close[0]]
    same_version = f"{close[0]}{label.removeprefix(type_)}"
    return same_version if same_version in found else found[-1]


def missing_events(missing: Sequence[str], known: Collection[str] | None, mapped: Collection[str], sink: str) -> Wait:
    """What a sink waits for that maps `missing`. `known`: what is published; None: this may not be asked."""
    meant = {label: nearest(label, known or (), mapped) for label in missing}
    told = [f"{as_written(label)}{_did_you_mean(meant[label])}" for label in missing]
    reason = f"no schema document is published yet of {', '.join(told)}"
    source = "give the source's configuration a section [events.NAME] of it, and start `cdc run`"
    if not any(meant.values()):
        return Wait(reason, f"{source[0].upper()}{source[1:]}; the worker then goes on by itself.")
    return Wait(
        reason, f"Correct [sinks.{sink}.tables] and start again; or {source}, and the worker goes on by itself."
    )


def _did_you_mean(label: str | None) -> str:
    return "" if label is None else f" (did you mean {as_written(label)}?)"


def _type(label: str) -> str:
    return label.rpartition(".v")[0]
