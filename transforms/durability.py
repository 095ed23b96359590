"""When a published event counts as safe, as the configuration file writes it: `memory`, `fsync` or `replicas:N`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Final, Literal, Self

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

DURABILITIES = '"memory", "fsync" or "replicas:N" with N from 1 to 99'


@dataclass(frozen=True, slots=True)
class Durability:
    """What Redis must have done with an event before the source may forget it."""

    kind: Literal["memory", "fsync", "replicas"]
    """It has it in memory; it has it on disk; so many of its replicas have it in memory too."""
    replicas: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the written form. Raises ValueError on anything else."""
        if text == "memory":
            return cls("memory")
        if text == "fsync":
            return cls("fsync")
        found = re.fullmatch(r"replicas:([1-9]\d?)", text, re.ASCII)
        if found is None:
            raise ValueError(f"expected {DURABILITIES}, got other text")
        return cls("replicas", int(found[1]))

    def __str__(self) -> str:
        """As it is written."""
        return f"replicas:{self.replicas}" if self.kind == "replicas" else self.kind


MEMORY: Final = Durability("memory")


def _durability(value: object) -> Durability:
    if isinstance(value, Durability):
        return value
    if not isinstance(value, str):
        raise PydanticCustomError("string_type", "not a text")
    return Durability.parse(value)


WrittenDurability = Annotated[Durability, BeforeValidator(_durability)]
"""A field that holds a Durability and is written like `replicas:1`."""
