"""Lists of columns in the configuration."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from transforms.names import identifier_problem


def distinct_columns(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names. Raises ValueError for none, for one that no column can have, and for one that is there twice."""
    if not names:
        raise ValueError("expected at least one column, got an empty list")
    problems = []
    for at, name in enumerate(names):
        if (problem := identifier_problem(name)) is not None:
            problems.append(f"column {at + 1} is {problem}")
        elif (first := names.index(name)) < at:
            problems.append(f"column {at + 1} is the same as column {first + 1}")
    if problems:
        raise ValueError("\n".join(problems))
    return names


ColumnNames = Annotated[tuple[str, ...], Field(strict=False), AfterValidator(distinct_columns)]
