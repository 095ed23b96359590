"""Python's names for fields and classes of generated models, whatever they are called in the source."""

from __future__ import annotations

import keyword
import unicodedata
from collections.abc import Collection, Sequence

from pydantic import BaseModel

_TAKEN = frozenset(dir(BaseModel)) | {"bool", "float", "int", "list", "str"}
"""A field of such a name would hide a method of the model, or a type that fields are annotated with."""


def field_names(names: Sequence[str], taken: Collection[str]) -> list[str]:
    """An identifier for each field; the same as its name wherever Python allows that. `taken`: what none may be."""
    used = {*taken, *(name for name in names if _identifier(name) == name)}
    found = []
    for name in names:
        if _identifier(name) != name or name in taken:
            found.append(_free(_identifier(name), used))
            used.add(found[-1])
        else:
            found.append(name)
    return found


def _identifier(name: str) -> str:
    plain = _letters(name).lstrip("_") or "field"
    plain = plain if plain.isidentifier() else f"field_{plain}"
    if keyword.iskeyword(plain) or plain in _TAKEN:
        plain += "_"
    return plain


def class_name(label: str, taken: Collection[str]) -> str:
    """A class' name for an event or related rows: `OrderLineV2` for `order_line.v2`."""
    words = _letters(label).split("_")
    return _free("".join(word[:1].upper() + word[1:] for word in words), taken)


def _letters(name: str) -> str:
    """What of a name may stand in an identifier, in the form in which Python compares them; `_` for all else."""
    return "".join(each if f"a{each}".isidentifier() else "_" for each in unicodedata.normalize("NFKC", name))


def _free(name: str, taken: Collection[str]) -> str:
    number = 2
    free = name
    while free in taken:
        free, number = f"{name.rstrip('_')}_{number}", number + 1
    return free
