"""How a condition is refused: what, where in it, and what would be right."""

from __future__ import annotations

from typing import Final, Self

from transforms.errors import EXIT_USAGE, StatecastError

_SHOWN: Final = 120


class ConditionRefused(StatecastError):
    """A condition is not in the subset of SQL that is accepted, or does not fit the event's columns."""

    exit_code = EXIT_USAGE
    remedy = (
        "Compare columns of the event with literals: = <> < <= > >=, IN, BETWEEN, LIKE, IS NULL, and a boolean column"
        " by itself, joined by AND, OR, NOT and parentheses."
    )

    @classmethod
    def at(cls, text: str, start: int, end: int, problem: str) -> Self:
        """`problem` is with what stands in `text` from `start` to before `end`."""
        return cls(f"{problem} (at character {start + 1}: {excerpt(text[start:end], 40)})")


def excerpt(text: str, length: int = _SHOWN) -> str:
    """At most so many characters of a condition, on one line, with nothing that a terminal would act on."""
    cut = text if len(text) <= length else text[: length - 3] + "..."
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in cut)
