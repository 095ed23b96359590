"""Which rows of an event a snapshot is of: a condition, judged for the event's columns as they are now."""

from __future__ import annotations

from cdc.errors import SourceRefused
from cdc.snapshot.subject import Subject
from cdc.source.chunk import check_condition
from cdc.source.connection import Source
from transforms.condition.refusal import ConditionRefused


def only_where(source: Source, subject: Subject, where: str | None) -> Subject:
    """The rows that meet a condition; all, where it is None. Raises ConditionRefused, and what the source raises.

    The condition may come from whoever can write to Redis: its text is read, and what Postgres is given is written from
    what was read.
    """
    if where is None:
        return subject
    from transforms.condition.reading import read_condition  # sqlglot's 18 MB are for those who use it
    from transforms.condition.rendering import render

    chosen = subject.only_where(render(read_condition(where, subject.columns)))
    try:
        check_condition(source, chosen.query(limit=1))
    except SourceRefused as error:  # as for a letter that the database's encoding does not have
        raise ConditionRefused(f"Postgres refuses it: {error}") from error
    return chosen
