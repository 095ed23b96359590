"""What is said of an event that a sink maps and that is not published any more."""

from __future__ import annotations

NOT_PUBLISHED = "is not published any more, so its replica stays as it is: `cdc run` has no event of this version"


def remedy(sink: str) -> str:
    """What to do about it."""
    return (
        f"Correct [sinks.{sink}.tables], where another version may take its place; or give the source's configuration"
        " its section [events.NAME] again."
    )
