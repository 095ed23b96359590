"""What `check` says of one precondition."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """One precondition, and the exact SQL or command that mends it."""

    verdict: Literal["ok", "warning", "error"]
    thing: str
    what: str
    remedy: str | None = None

    def lines(self) -> list[str]:
        """For people: a line, and what mends it indented below."""
        remedy = [f"         {line}" for line in (self.remedy or "").splitlines()]
        return [f"{self.verdict:<8} {self.thing}: {self.what}", *remedy]

    def to_dict(self) -> dict[str, str | None]:
        """For JSON."""
        return asdict(self)
