"""What can go wrong in `cdc init` beside the connection."""

from __future__ import annotations

from cdc.errors import SourceError
from transforms.errors import EXIT_USAGE, StatecastError


class NoDsn(StatecastError):
    """There is nothing to connect to."""

    exit_code = EXIT_USAGE
    remedy = "Run `export SOURCE_DSN=postgresql://user:password@host/database`, or name another DSN with --source."


class FileInTheWay(StatecastError):
    """The file that would be written is there already, or cannot be written."""

    exit_code = EXIT_USAGE
    remedy = (
        "Name another file with -o and take over from it what is new here, or write to standard output with `-o -`."
    )


class NoSuchTable(StatecastError):
    """A pattern of --table matches no table."""

    exit_code = EXIT_USAGE
    remedy = (
        "Correct --table: a pattern like 'public.*' or 'order*', on schema.name or on name, as the catalog spells them."
    )


class NothingToMap(SourceError):
    """No table can be mapped as it is."""

    remedy = "Run the SQL above for the tables that you want to share, then `cdc init` again."


class NothingThere(SourceError):
    """The database has no table that could be mapped."""

    remedy = "Name the database that holds the tables in --source, or other tables with --table."
