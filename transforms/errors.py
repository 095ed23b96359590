"""The root of every error that statecast raises on purpose.

An error says what happened (its message), whether it may pass by itself (`retryable`), what a person can do
about it (`remedy`: one imperative sentence, with the exact command or SQL where there is one), and which exit
code a command ends with (`exit_code`, see the README). Messages never hold row values, DSNs or secrets.
"""

from __future__ import annotations

from typing import ClassVar

EXIT_DONE = 0
EXIT_DIFFERENCE = 1
EXIT_USAGE = 2
EXIT_NEEDS_PERSON = 3
EXIT_UNREACHABLE = 4
EXIT_INTERRUPTED = 130


class StatecastError(Exception):
    """Something that statecast noticed and can explain."""

    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = EXIT_NEEDS_PERSON
    remedy: str = "Read the message above, mend its cause and start the command again."

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        if remedy is not None:
            self.remedy = remedy


class MalformedEntry(StatecastError):
    """A stream entry does not have the shape of wire format 1."""

    remedy = "Find out who else writes to this stream: only the reader of its pipeline may."


class ValueNotEncodable(StatecastError):
    """A column's value cannot be written as JSON text, which is always UTF-8."""

    remedy = "Correct the value in the source table (its database's encoding let it in), then start the reader again."
