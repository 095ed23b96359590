"""What `check` says of one precondition."""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass
from typing import Final, Literal, TypedDict

_MARGIN: Final = 9


class _Wrapping(TypedDict):
    break_long_words: bool
    break_on_hyphens: bool


_AS_IT_IS: Final[_Wrapping] = {"break_long_words": False, "break_on_hyphens": False}


def wrapped(text: str, width: int | None) -> str:
    """A message, each of its lines between words so that it fits into `width`; None: as it is."""
    if width is None:
        return text
    lines = [textwrap.wrap(line, width, subsequent_indent="  ", **_AS_IT_IS) or [""] for line in text.splitlines()]
    return "\n".join(part for line in lines for part in line)


@dataclass(frozen=True, slots=True)
class Finding:
    """One precondition, and the exact SQL or command that mends it."""

    verdict: Literal["ok", "warning", "error"]
    thing: str
    what: str
    remedy: str | None = None

    def lines(self, width: int | None = None) -> list[str]:
        """For people: what it is, wrapped to `width`, and what mends it indented below, in one piece to be copied."""
        what = f"{self.verdict:<{_MARGIN}}{self.thing}: {self.what}"
        wrapped = [what] if width is None else textwrap.wrap(what, width, subsequent_indent=" " * _MARGIN, **_AS_IT_IS)
        return wrapped + [" " * _MARGIN + line for line in (self.remedy or "").splitlines()]

    def to_dict(self) -> dict[str, str | None]:
        """For JSON."""
        return asdict(self)
