"""Types by the name that `format_type` gives them, which is all that a schema document tells of one."""

from __future__ import annotations

import re
from typing import NamedTuple

_MODIFIER = re.compile(r"\(([0-9]+)(?:,-?[0-9]+)?\)")


class TypeText(NamedTuple):
    """A type's text, taken apart."""

    name: str
    """Of a built-in type without modifier and brackets: `numeric`, `timestamp without time zone`."""
    size: int | None
    """The modifier's first number: of `character varying(40)` the most characters that a value has."""
    is_array: bool
    """Whether a value is a JSON array: those of json and jsonb stay text."""

    @property
    def is_own(self) -> bool:
        """Whether it is somebody's own type, which `format_type` names with its schema."""
        return "." in self.name

    @classmethod
    def of(cls, base_type: str) -> TypeText:
        """Read what `format_type` has printed of a type that is not a domain."""
        if "." in base_type or '"' in base_type:  # also the built-in `"char"`
            return cls(base_type, None, base_type.endswith("[]"))
        element = base_type.removesuffix("[]")
        modifier = _MODIFIER.search(element)
        name = _MODIFIER.sub("", element, count=1)
        size = int(modifier[1]) if modifier else None
        if element != base_type and name in ("json", "jsonb"):
            return cls("text", None, False)
        return cls(name, size, element != base_type)
