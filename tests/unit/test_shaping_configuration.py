"""`rename`, `mask`, `where` and `[masking]` in the configuration: what is accepted, and how a mistake is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cdc.config import ReaderConfig, load_reader_config
from transforms.config import ConfigurationError
from transforms.secret import SecretUnreadable

KEY = "a-planted-key-of-thirty-bytes!"
ENVIRON = {"MASK_KEY": KEY}
FILE = """
[pipeline]
name = "shop"
[source]
dsn = "host=/run"
[transport]
url = "unix:///run/redis"
[masking]
{masking}
[events.customer]
table = "customers"
columns = ["id", "name", "email"]
{event}
"""
HASH_KEY = 'hash_key = "${MASK_KEY}"'

Load = Callable[..., ReaderConfig]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(event: str = "", masking: str = HASH_KEY) -> ReaderConfig:
        (tmp_path / "cdc.toml").write_text(FILE.format(event=event, masking=masking), encoding="utf-8")
        return load_reader_config(tmp_path / "cdc.toml", ENVIRON)

    return load


def test_an_event_is_published_as_its_table_is_by_default(load: Load) -> None:
    (event,) = load(masking="").events
    assert (event.rename, event.mask, event.where) == ({}, {}, None)


def test_columns_are_renamed_and_masked_and_rows_chosen(load: Load) -> None:
    config = load(
        'rename = { name = "full_name", email = "name" }\nmask = { email = "hash", name = "redact" }\n'
        "where = \"active AND region IN ('eu', 'us')\"",
        HASH_KEY + '\nhash_key_id = "2026-05"',
    )
    (event,) = config.events
    assert event.rename == {"name": "full_name", "email": "name"}
    assert event.mask == {"email": "hash", "name": "redact"}
    assert event.where == "active AND region IN ('eu', 'us')"
    masks = config.masking.masks
    assert (masks.hash_key, masks.hash_key_id) == (KEY.encode(), "2026-05")
    assert KEY not in repr(config)
    assert KEY not in repr(masks)


def test_a_hash_key_in_a_file_is_read_again(load: Load, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("x" * 16)
    config = load("", f'hash_key = "${{file:{tmp_path}/key}}"')
    (tmp_path / "key").write_text("y" * 16)
    assert config.masking.masks.hash_key == b"y" * 16
    (tmp_path / "key").unlink()
    with pytest.raises(SecretUnreadable):
        _ = config.masking.masks


@pytest.mark.parametrize(
    ("event", "mistake"),
    [
        ('rename = { nme = "x" }', "rename.nme: no such column among the event's columns"),
        ('rename = { name = "email" }', "rename.name: another field of the event has this name already"),
        ('rename = { name = "" }', "rename.name: the new name is an empty name"),
        ('rename = { name = "a\\u0000b" }', "rename.name: the new name is a name with a NUL character"),
        (
            f'rename = {{ name = "{"é" * 32}" }}',
            "rename.name: the new name is a name of 64 bytes (Postgres holds at most 63)",
        ),
        ("rename = { name = 5 }", "rename.name: expected text, got a number"),
        ("rename = 'x'", 'rename: expected a section like { name = "full_name" }, got text'),
        ('mask = { nme = "redact" }', "mask.nme: no such column among the event's columns"),
        ('mask = { name = "sha" }', 'mask.name: expected "hash", "redact" or "null", got other text'),
        (
            'key = ["email"]\nmask = { email = "null" }',
            'mask.email: expected "hash" for a column of the key, got "null": rows must stay distinct',
        ),
        (
            'key = ["email"]\nmask = { email = "redact" }',
            'mask.email: expected "hash" for a column of the key, got "redact": rows must stay distinct',
        ),
        ("where = 5", "where: expected a condition on columns of the table, got a number"),
        ("where = ''", "where: it is empty"),
        ("where = 'a = 1; DROP TABLE x'", "where: conditions have nothing like this (at character 6: ;)"),
        ("where = 'a ='", "where: it cannot be read from here on (at character 3: =)"),
    ],
)
def test_a_mistake_is_told_on_its_line(load: Load, event: str, mistake: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        load(event)
    assert refusal.value.problems == (f"events.customer.{mistake}",)


@pytest.mark.parametrize(
    ("masking", "mistake"),
    [
        ("", 'events.customer.mask.email: a hash needs a key: set masking.hash_key = "${MASK_KEY}"'),
        ('hash_key = "${NO_KEY}"', "masking.hash_key: environment variable NO_KEY is not set"),
        (
            'hash_key = "too short"',
            "masking.hash_key: expected 16 characters or more (`openssl rand -hex 32` makes some)",
        ),
        (
            HASH_KEY + '\nhash_key_id = "a:b"',
            "masking.hash_key_id: expected up to 32 letters, digits, - and _, got other text",
        ),
        (HASH_KEY + '\nhash = "x"', 'masking.hash: unknown key (did you mean "hash_key"?)'),
    ],
)
def test_a_mistake_in_the_key_is_told_on_its_line(load: Load, masking: str, mistake: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        load('mask = { email = "hash" }', masking)
    assert refusal.value.problems == (mistake,)
