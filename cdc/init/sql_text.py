"""SQL as text for people to paste: identifiers that read exactly, whatever they hold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from transforms.names import TableName, quote_identifier

LINE: Final = 74
"""How wide statements are written: with what stands before them in a comment they fill 80 columns."""


def identifier(name: str) -> str:
    """A name as SQL writes it. Characters that a terminal or an editor would act on or hide are escaped.

    Source: https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-IDENTIFIERS-UNICODE
    """
    if name.isprintable():
        return quote_identifier(name)
    escaped = "".join(letter if letter.isprintable() else _escape(letter) for letter in name.replace("\\", "\\\\"))
    return 'U&"' + escaped.replace('"', '""') + '"'


def _escape(letter: str) -> str:
    return f"\\{ord(letter):04X}" if ord(letter) <= 0xFFFF else f"\\+{ord(letter):06X}"


def table_name(table: TableName) -> str:
    """A table's name with its schema."""
    return f"{identifier(table.schema)}.{identifier(table.name)}"


def column_list(columns: Iterable[str]) -> str:
    """`(a, "B")`."""
    return f"({', '.join(map(identifier, columns))})"


def filled(before: str, items: Iterable[str], after: str, *, width: int = LINE) -> str:
    """Items between commas, on as many lines as they need; a line begins with four spaces but for the first."""
    lines, line = [], before
    parts = list(items)
    for number, part in enumerate(parts):
        part += "," if number < len(parts) - 1 else after
        if len(line) + 1 + len(part) > width and line.strip():
            lines.append(line)
            line = f"    {part}"
        else:
            line = f"{line} {part}" if line and not line.endswith(("(", "[")) else f"{line}{part}"
    return "\n".join([*lines, line])
