"""What moves the places of an event beside others in their stream: what comes again is still taken for theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests import servers
from tests.processes import Pipeline, closing, wait_until

TWO = """
[events.part]
table = "boxes"
columns = ["id", "notes"]
stream = "both"
{}
[events.whole]
table = "boxes"
columns = ["id", "size"]
stream = "both"
"""
HOOK = "def chosen(state):\n    return state if state['id'] % 2 else None\n"
HOOKED = 'transform = "chosen:chosen"'
BEFORE_IT = """
[events.first]
table = "boxes"
columns = ["id"]
stream = "both"
"""


@pytest.mark.parametrize(
    ("before", "after", "more"),
    [
        ('where = "id < 3"', 'where = "id > 2"', ""),
        ('unchanged_toast = "reread"', 'unchanged_toast = "partial"', ""),
        ('truncate = "ignore"', "", ""),
        ("", "", BEFORE_IT),
        (HOOKED, HOOKED, ""),
    ],
    ids=["where", "unchanged_toast", "truncate", "another event", "a hook, as before"],
)
def test_the_reader_goes_on(
    postgres_server: servers.Postgres,
    redis_server: servers.Redis,
    tmp_path: Path,
    before: str,
    after: str,
    more: str,
) -> None:
    with servers.database(postgres_server, "source") as source:
        with psycopg.connect(source) as connection:
            connection.execute("CREATE TABLE boxes (id int PRIMARY KEY, size int, notes text)")
            connection.execute("ALTER TABLE boxes ALTER notes SET STORAGE EXTERNAL")
        slow = "confirm_delay_seconds = 60"  # so that all comes again
        (tmp_path / "chosen.py").write_text(HOOK)
        options: dict[str, Any] = {"transport_options": slow, "working_directory": tmp_path}
        first = Pipeline("beside", source, redis_server.url(), tmp_path, TWO.format(before), **options)
        with closing(first):
            servers.flush(redis_server.url())
            reader = first.reader()
            first.wait_published()
            with psycopg.connect(source, autocommit=True) as connection:
                connection.execute("INSERT INTO boxes SELECT i, 0, repeat('x', 4000) FROM generate_series(1, 4) i")
                connection.execute("UPDATE boxes SET size = 1")
                connection.execute("TRUNCATE boxes")
                connection.execute("INSERT INTO boxes SELECT i, 0, 'short' FROM generate_series(1, 4) i")
            first.wait_published()
            reader.kill()
            second = Pipeline("beside", source, redis_server.url(), tmp_path, TWO.format(after) + more, **options)
            with closing(second):
                begun = len(reader.output)
                reader = second.reader()
                with psycopg.connect(source) as connection:
                    connection.execute("INSERT INTO boxes VALUES (9, 0, 'new')")
                position = second.flush_position()
                wait_until("all to be published", lambda: not reader.running or second.published >= position)
                assert reader.running, reader.output[begun:]
