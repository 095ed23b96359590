"""Texts that are never shown, perhaps with parts from the environment or from files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from transforms.errors import StatecastError


class SecretUnreadable(StatecastError):
    """A `${file:PATH}` that could be read when the configuration was loaded cannot be read now."""

    retryable = True  # files of mounted secrets vanish for a moment when they are replaced
    remedy = "Put the file back where the configuration expects it, readable for this process."


class Secret:
    """A text that is never shown: a DSN, URL or key, perhaps with parts from the environment or from files.

    The environment is read once, by `parse`; files are read again by every `reveal`, so that a rotated password is
    picked up at the next reconnect. Relative paths start at the working directory.
    """

    __slots__ = ("_parts",)

    _REFERENCE: Final = re.compile(
        r"\$(?:(?P<dollar>\$)|\{file:(?P<file>[^}]+)\}|\{(?P<name>[A-Za-z_]\w*)(?::-(?P<default>[^}]*))?\}|)", re.ASCII
    )

    def __init__(self, *parts: str | Path) -> None:
        self._parts = parts

    @classmethod
    def parse(cls, text: str, environ: Mapping[str, str]) -> Self:
        """Read `${NAME}`, `${NAME:-default}` (for unset or empty), `${file:PATH}` and `$$` in `text`.

        Raises ValueError, one line for each mistake: bad syntax, a variable that is not set, a file that cannot be
        read, or nothing at all in the end.
        """
        parts: list[str | Path] = []
        problems: list[str] = []
        literal, end = "", 0
        for found in cls._REFERENCE.finditer(text):
            literal += text[end : found.start()]
            end = found.end()
            name, default = found["name"], found["default"]
            if found["dollar"]:
                literal += "$"
            elif found["file"]:
                parts += literal, Path(found["file"])
                literal = ""
            elif name is None:
                problems.append('"$" must begin ${NAME}, ${NAME:-default} or ${file:PATH} (write $$ for a dollar sign)')
            elif default is not None:
                literal += environ.get(name) or default
            elif name in environ:
                literal += environ[name]
            else:
                problems.append(f"environment variable {name} is not set")
        secret = cls(*parts, literal + text[end:])
        try:
            empty = not secret.reveal()
        except SecretUnreadable as error:
            problems.append(str(error))
        else:
            if empty and not problems:
                problems.append("the value is empty")
        if problems:
            raise ValueError("\n".join(dict.fromkeys(problems)))
        return secret

    def reveal(self) -> str:
        """The text itself. Raises SecretUnreadable when a file it refers to cannot be read now."""
        return "".join(_contents(part) if isinstance(part, Path) else part for part in self._parts)

    def __eq__(self, other: object) -> bool:
        return self._parts == other._parts if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._parts)

    def __repr__(self) -> str:
        return "Secret('***')"

    def __str__(self) -> str:
        return "***"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        def read(value: object, info: core_schema.ValidationInfo) -> Secret:
            if isinstance(value, Secret):
                return value
            if not isinstance(value, str):
                raise PydanticCustomError("string_type", "not a text")
            return cls.parse(value, (info.context or {}).get("environ", {}))

        return core_schema.with_info_plain_validator_function(read, serialization=core_schema.to_string_ser_schema())


def _contents(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise SecretUnreadable(f"cannot read the file {str(path)!r}: {error.strerror}") from error
    except ValueError:  # its chain would carry the bytes
        raise SecretUnreadable(f"cannot read the file {str(path)!r}: not UTF-8 text") from None
