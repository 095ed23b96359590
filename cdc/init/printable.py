"""Text for terminals and comments, whatever names it holds."""

from __future__ import annotations

import textwrap
from typing import Final

WIDTH: Final = 80


def printable(text: str) -> str:
    """The text with all that a terminal, an editor or TOML would act on escaped."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def wrapped(text: str, *, first: str = "", hanging: str = "", width: int = WIDTH) -> list[str]:
    """Lines of whole words; names that are longer than a line are kept whole."""
    return textwrap.wrap(
        printable(text),
        width,
        initial_indent=first,
        subsequent_indent=hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )
