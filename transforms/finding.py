"""What `check` says of one precondition."""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass
from typing import Final, Literal

_MARGIN: Final = 9
_COMMENT: Final = "-- "


def wrapped(text: str, width: int | None) -> str:
    """A message, each of its lines between words so that it fits into `width`; None: as it is."""
    if width is None:
        return text
    return "\n".join(part for line in text.splitlines() for part in _wrapped(line, "  ", width) or [""])


@dataclass(frozen=True, slots=True)
class Finding:
    """One precondition, and the exact SQL or command that mends it."""

    verdict: Literal["ok", "warning", "error"]
    thing: str
    what: str
    remedy: str | None = None

    def lines(self, width: int | None = None) -> list[str]:
        """For people: what it is, wrapped to `width`, and what mends it indented below.

        That is one piece to be copied, so that none of its lines is wrapped but comments, which stay comments.
        """
        margin, told = " " * _MARGIN, f"{self.verdict:<{_MARGIN}}{self.thing}: {self.what}"
        lines = _wrapped(told, margin, width)
        for line in (self.remedy or "").splitlines():
            comment = line.startswith(_COMMENT)
            lines += _wrapped(margin + line, margin + _COMMENT, width if comment else None)
        return lines

    def to_dict(self) -> dict[str, str | None]:
        """For JSON."""
        return asdict(self)


def _wrapped(text: str, hanging: str, width: int | None) -> list[str]:
    if width is None:
        return [text]
    return textwrap.wrap(text, width, subsequent_indent=hanging, break_long_words=False, break_on_hyphens=False)
