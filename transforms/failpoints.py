"""Named places where a test has a process die, halt or fail: arrows of the confirm rule and of a sink's transaction.

The environment arms them, as in `STATECAST_FAILPOINTS="batch-sent:kill@3,rows-applied:error"`: at the third time that
place is passed, and at the first. That is a mistake unless `STATECAST_ALLOW_FAILPOINTS=1` stands beside it, so that
nothing which is forgotten in an environment ends a reader that people rely on. Places are passed once a batch, or more
rarely, and never once a row; one that is not armed costs a look at a variable.
"""

from __future__ import annotations

import enum
import itertools
import logging
import os
import re
import signal
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from transforms.errors import EXIT_USAGE, StatecastError

ARMED_BY, ALLOWED_BY = "STATECAST_FAILPOINTS", "STATECAST_ALLOW_FAILPOINTS"

log = logging.getLogger(__name__)


class Failpoint(enum.StrEnum):
    """What has just been done when the process fails there."""

    FRAMES_DECODED = "frames-decoded"
    BATCH_BUILT = "batch-built"
    BATCH_SENT = "batch-sent"
    """To Redis, which has not answered."""
    BATCH_APPENDED = "batch-appended"
    POSITION_STORED = "position-stored"
    """In Redis, as `published`."""
    PROGRESS_STORED = "progress-stored"
    """The position waits to be confirmed to the slot."""
    POSITION_VOUCHED = "position-vouched"
    """Redis has been seen to hold it, as safe as `transport.durability` asks."""
    STATUS_SENT = "status-sent"
    """To the slot, with a position that is newly confirmed."""

    ENTRIES_READ = "entries-read"
    CHECKPOINT_LOCKED = "checkpoint-locked"
    """The statement that locks it is the first of the transaction, and goes along with the next one."""
    ROWS_APPLIED = "rows-applied"
    CHECKPOINT_UPDATED = "checkpoint-updated"
    COMMIT_SENT = "commit-sent"
    """And not been answered."""
    COMMIT_ANSWERED = "commit-answered"
    GROUP_MOVED = "group-moved"


OF_READER = tuple(Failpoint)[:8]
OF_SINK = tuple(Failpoint)[8:]


class Action(enum.StrEnum):
    """What happens."""

    KILL = "kill"
    """SIGKILL to itself."""
    STOP = "stop"
    """SIGSTOP to itself."""
    ERROR = "error"
    """FailpointReached is raised."""


class FailpointReached(StatecastError):
    """A test had the process fail here."""

    retryable = True
    remedy = f"Start it without {ARMED_BY}, which is for tests."


class FailpointsRefused(StatecastError):
    """The environment arms failpoints as it must not."""

    exit_code = EXIT_USAGE
    remedy = f"Unset {ARMED_BY}; in a test that means it, set {ALLOWED_BY}=1 as well."


class _Armed(NamedTuple):
    action: Action
    at: int
    """The pass at which it acts; the first is 1."""
    passes: Iterator[int]


_ARM = re.compile(r"([a-z-]+):([a-z]+)(?:@([1-9][0-9]{0,8}))?")
_armed: dict[Failpoint, _Armed] = {}


def arm(environ: Mapping[str, str]) -> None:
    """Arm what the environment says, and nothing else. Raises FailpointsRefused."""
    _armed.clear()
    if not (text := environ.get(ARMED_BY)):
        return
    if environ.get(ALLOWED_BY) != "1":
        raise FailpointsRefused(f"{ARMED_BY} is set, and would have this process fail on purpose")
    for word in text.split(","):
        match = _ARM.fullmatch(word.strip())
        if match is None or match[1] not in set(Failpoint) or match[2] not in set(Action):
            raise FailpointsRefused(
                f"{ARMED_BY}: {word.strip()!r} is no place with an action",
                remedy=f"Write NAME:ACTION or NAME:ACTION@PASS; names: {', '.join(Failpoint)}; actions:"
                f" {', '.join(Action)}.",
            )
        _armed[Failpoint(match[1])] = _Armed(Action(match[2]), int(match[3] or 1), itertools.count(1))
    log.warning("this process fails on purpose: %s", text)


def reached(place: Failpoint) -> None:
    """Fail here, where that is armed."""
    if _armed and is_due(place):
        fail(place)


def is_due(place: Failpoint) -> bool:
    """Whether to `fail` at this pass; for places that need something done differently for it."""
    armed = _armed.get(place)
    return armed is not None and next(armed.passes) == armed.at


def fail(place: Failpoint) -> None:
    """Do what is armed."""
    action = _armed[place].action
    log.warning("failpoint %s: %s", place, action)
    if action is Action.ERROR:
        raise FailpointReached(f"failpoint {place} was reached")
    os.kill(os.getpid(), signal.SIGKILL if action is Action.KILL else signal.SIGSTOP)
