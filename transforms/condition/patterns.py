"""Patterns of LIKE: `%` any text, `_` any character, a backslash before one that stands for itself."""

from __future__ import annotations

import re


def check(pattern: str) -> None:
    """Raise ValueError for a pattern that Postgres would refuse, though only when it meets the wrong row."""
    if len(pattern) - len(pattern.rstrip("\\")) & 1:
        raise ValueError("a pattern must not end with the backslash that escapes the next character")


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """To be matched against whole texts, in time that grows with the text times the pattern.

    What stands between two `%` is matched where it comes first, for good (an atomic group), so that nothing is tried
    again; what stands behind the last one has but one place to be.
    """
    pieces, escaped = [""], False
    for letter in pattern:
        if escaped or letter not in "%_\\":
            pieces[-1] += re.escape(letter)
            escaped = False
        elif letter == "%":
            pieces.append("")
        else:
            pieces[-1] += "." if letter == "_" else ""
            escaped = letter == "\\"
    first, *rest = pieces
    middle = "".join(f"(?>.*?{piece})" for piece in rest[:-1] if piece)
    last = f".*{rest[-1]}" if rest else ""
    return re.compile(first + middle + last, re.DOTALL)
