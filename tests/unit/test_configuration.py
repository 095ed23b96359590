"""The configuration file: what is accepted, and the exact line that tells each mistake."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from cdc.config import EventConfig, ReaderConfig, SourceConfig, load_reader_config
from sinks.config import SinkConfig, load_sink_config
from transforms.config import ConfigurationError, PipelineConfig, TransportConfig
from transforms.durability import Durability
from transforms.errors import EXIT_USAGE
from transforms.names import TableName
from transforms.secret import Secret, SecretUnreadable

PASSWORD = "hunter2-planted"
ESCAPES = "in a user name or password write %2F for /, %3F for ?, %23 for # and %40 for @"
ENVIRON = {
    "SOURCE_DSN": f"postgresql://cdc:{PASSWORD}@db/shop",
    "REDIS_URL": f"redis://:{PASSWORD}@redis:6379",
    "BILLING_DSN": f"postgresql://billing:{PASSWORD}@db/billing",
}
PIPELINE = '[pipeline]\nname = "shop"\n'
SOURCE = '[source]\ndsn = "${SOURCE_DSN}"\n'
TRANSPORT = '[transport]\nurl = "${REDIS_URL}"\n'
EVENT = '[events.customer]\ntable = "public.customers"\ncolumns = ["id", "name"]\n'
SINK = '[sinks.billing]\ntype = "postgres"\ndsn = "${BILLING_DSN}"\n'
TABLES = '[sinks.billing.tables]\ncustomer = "replica.customers"\n'
READER = PIPELINE + SOURCE + TRANSPORT + EVENT
WORKER = PIPELINE + TRANSPORT + SINK + TABLES

ReadReader = Callable[..., ReaderConfig]
ReadSink = Callable[..., SinkConfig]


@pytest.fixture
def reader(tmp_path: Path) -> ReadReader:
    def load(text: str, environ: Mapping[str, str] = ENVIRON) -> ReaderConfig:
        (tmp_path / "cdc.toml").write_text(text, encoding="utf-8")
        return load_reader_config(tmp_path / "cdc.toml", environ)

    return load


@pytest.fixture
def sink(tmp_path: Path) -> ReadSink:
    def load(text: str, environ: Mapping[str, str] = ENVIRON, name: str = "billing") -> SinkConfig:
        (tmp_path / "cdc.toml").write_text(text, encoding="utf-8")
        return load_sink_config(tmp_path / "cdc.toml", environ, name)

    return load


def mistakes(load: Callable[..., object], *arguments: object, **options: object) -> list[str]:
    with pytest.raises(ConfigurationError) as refusal:
        load(*arguments, **options)
    assert str(refusal.value) == "\n".join(refusal.value.problems)
    assert PASSWORD not in str(refusal.value)
    return list(refusal.value.problems)


# What is accepted


def test_a_reader_needs_a_name_a_source_a_transport_and_one_event(reader: ReadReader) -> None:
    config = reader(READER)
    assert config == ReaderConfig(
        pipeline=PipelineConfig(name="shop"),
        source=SourceConfig(dsn=Secret(ENVIRON["SOURCE_DSN"]), slot="cdc_shop", snapshot="initial"),
        transport=TransportConfig(url=Secret(ENVIRON["REDIS_URL"]), confirm_delay_seconds=2.0),
        events=(EventConfig(name="customer", table=TableName("public", "customers"), columns=("id", "name")),),
    )
    assert config.publication == "cdc_shop"


def test_an_event_has_the_documented_defaults(reader: ReadReader) -> None:
    (event,) = reader(READER).events
    assert (event.name, event.type, event.version, event.stream, event.key) == (
        "customer",
        "customer",
        1,
        "customer",
        None,
    )
    assert (event.truncate, event.unchanged_toast, event.label) == ("apply", "reread", "customer.v1")


def test_everything_that_is_built_can_be_set(reader: ReadReader) -> None:
    config = reader(
        PIPELINE
        + SOURCE
        + 'slot = "other"\nsnapshot = "never"\n'
        + TRANSPORT
        + 'confirm_delay_seconds = 0\nretain = "90m"\nmax_backlog_bytes = 1073741824\nlaggard = "resync"\n'
        + '[events.customer_v2]\ntable = "Customers"\ncolumns = ["*"]\ntype = "customer"\nversion = 2\nkey = ["id"]\n'
        + 'stream = "people"\ntruncate = "halt"\nunchanged_toast = "halt"\n'
    )
    (event,) = config.events
    assert (config.publication, config.source.snapshot, config.transport.confirm_delay_seconds) == ("other", "never", 0)
    transport = config.transport
    assert (transport.retain, transport.max_backlog_bytes, transport.laggard) == (
        timedelta(minutes=90),
        1 << 30,
        "resync",
    )
    assert (event.label, event.stream, event.table) == ("customer.v2", "people", TableName("public", "customers"))
    assert (event.key, event.truncate, event.unchanged_toast) == (("id",), "halt", "halt")


def test_entries_are_kept_for_an_hour_by_default_and_unread_ones_without_a_limit(reader: ReadReader) -> None:
    transport = reader(READER).transport
    assert (transport.retain, transport.max_backlog_bytes, transport.laggard) == (timedelta(hours=1), None, "block")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0s", timedelta(0)), ("30s", timedelta(seconds=30)), ("1m", timedelta(minutes=1)), ("7d", timedelta(days=7))],
)
def test_a_duration_is_a_number_and_a_unit(reader: ReadReader, text: str, expected: timedelta) -> None:
    config = reader(READER.replace(TRANSPORT, TRANSPORT + f'retain = "{text}"\n'))
    assert config.transport.retain == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("memory", Durability("memory")),
        ("fsync", Durability("fsync")),
        ("replicas:1", Durability("replicas", 1)),
        ("replicas:99", Durability("replicas", 99)),
    ],
)
def test_when_an_event_counts_as_safe_is_one_of_three(reader: ReadReader, text: str, expected: Durability) -> None:
    config = reader(READER.replace(TRANSPORT, TRANSPORT + f'durability = "{text}"\n'))
    assert config.transport.durability == expected
    assert str(expected) == text
    assert reader(READER).transport.durability == Durability("memory")


def test_the_stream_is_the_type_by_default(reader: ReadReader) -> None:
    assert reader(READER + 'type = "client"\n').events[0].stream == "client"


def test_keys_for_later_are_accepted_with_their_documented_defaults(reader: ReadReader) -> None:
    later = reader(
        PIPELINE
        + SOURCE
        + 'publish_columns = "all"\nallow_plaintext = false\n'
        + TRANSPORT
        + 'durability = "memory"\nallow_plaintext = false\n[masking]\n'
        + EVENT
        + "partitions = 1\nprevious = false\n"
    )
    assert later == reader(READER)


def test_the_reader_leaves_sinks_alone(reader: ReadReader) -> None:
    assert reader(READER + '[sinks.x]\ndsn = "${UNSET}"\nno_such_key = 1\n') == reader(READER)


def test_a_sink_needs_only_the_pipeline_the_transport_and_its_own_section(sink: ReadSink) -> None:
    others = '[source]\ndsn = "${UNSET}"\n[events.x]\nnonsense = 1\n[sinks.crm]\ndsn = "${UNSET}"\n'
    config = sink(others + WORKER)
    assert (config.pipeline.name, config.name, config.adopt) == ("shop", "billing", False)
    assert config.address.reveal() == ENVIRON["BILLING_DSN"]
    assert config.transport.url.reveal() == ENVIRON["REDIS_URL"]
    assert config.tables == {"customer.v1": TableName("replica", "customers")}


def test_a_sink_takes_versions_quoted_or_not(sink: ReadSink) -> None:
    lines = '"customer.v2" = "replica.customers2"\norder.v3 = "Orders"\n'
    assert {label: str(table) for label, table in sink(WORKER + lines).tables.items()} == {
        "customer.v1": "replica.customers",
        "customer.v2": "replica.customers2",
        "order.v3": "public.orders",
    }


def test_a_sink_may_adopt(sink: ReadSink) -> None:
    assert sink(PIPELINE + TRANSPORT + SINK + "adopt = true\nallow_plaintext = false\n" + TABLES).adopt


def test_a_configuration_cannot_be_changed(reader: ReadReader, sink: ReadSink) -> None:
    with pytest.raises(ValidationError):
        reader(READER).pipeline.name = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        sink(WORKER).tables["customer.v1"] = TableName("a", "b")  # type: ignore[index]


# Mistakes of the reader's sections

AFTER = {
    "pipeline": (PIPELINE, SOURCE + TRANSPORT + EVENT),
    "source": (PIPELINE + SOURCE, TRANSPORT + EVENT),
    "transport": (PIPELINE + SOURCE + TRANSPORT, EVENT),
    "event": (READER, ""),
}
NAME_RULE = "expected a name that matches [a-z][a-z0-9_]{0,62}, not meta, requests, schema, status"


@pytest.mark.parametrize(
    ("section", "line", "mistake"),
    [
        ("pipeline", "title = 1", "pipeline.title: unknown key (allowed: name)"),
        ("source", "slto = 'x'", 'source.slto: unknown key (did you mean "slot"?)'),
        ("source", "snapshot = 5", 'source.snapshot: expected "initial" or "never", got a number'),
        ("source", "snapshot = 'x'", 'source.snapshot: expected "initial" or "never", got other text'),
        ("source", "slot = 'A'", "source.slot: expected a name that matches [a-z0-9_]{1,63}, got other text"),
        ("source", "slot = []", "source.slot: expected a name that matches [a-z0-9_]{1,63}, got a list"),
        ("source", "publish_columns = 'mapped'", "source.publish_columns: not supported yet"),
        (
            "transport",
            "confirm_delay_seconds = -1",
            "transport.confirm_delay_seconds: expected a number of seconds, 0 or more, got another number",
        ),
        (
            "transport",
            "confirm_delay_seconds = inf",
            "transport.confirm_delay_seconds: expected a number of seconds, 0 or more, got another number",
        ),
        (
            "transport",
            "confirm_delay_seconds = '2s'",
            "transport.confirm_delay_seconds: expected a number of seconds, 0 or more, got text",
        ),
        (
            "transport",
            "retain = '1 hour'",
            'transport.retain: expected a duration like "1h": a whole number and s, m, h or d, got other text',
        ),
        (
            "transport",
            "retain = 3600",
            'transport.retain: expected a duration like "1h": a whole number and s, m, h or d, got a number',
        ),
        (
            "transport",
            "max_backlog_bytes = 1000",
            "transport.max_backlog_bytes: expected a whole number of bytes, 16777216 or more, got another number",
        ),
        ("transport", "laggard = 'drop'", 'transport.laggard: expected "block" or "resync", got other text'),
        (
            "transport",
            "laggard = 'resync'",
            'transport.laggard: "resync" needs transport.max_backlog_bytes, from which on a sink is a laggard',
        ),
        (
            "transport",
            "durability = 'replicas:0'",
            'transport.durability: expected "memory", "fsync" or "replicas:N" with N from 1 to 99, got other text',
        ),
        (
            "transport",
            "durability = 1",
            'transport.durability: expected "memory", "fsync" or "replicas:N" with N from 1 to 99, got a number',
        ),
        ("event", "colums = ['id']", 'events.customer.colums: unknown key (did you mean "columns"?)'),
        (
            "event",
            "name = 'x'",
            'events.customer.name: unknown key (did you mean "rename"?)',
        ),
        ("event", "type = 'status'", f"events.customer.type: {NAME_RULE}"),
        ("event", "stream = 'requests'", f"events.customer.stream: {NAME_RULE}"),
        ("event", "type = 'A b'", f"events.customer.type: {NAME_RULE}, got other text"),
        (
            "event",
            "version = 0",
            "events.customer.version: expected a whole number from 1 to 999999, got another number",
        ),
        (
            "event",
            "version = 1000000",
            "events.customer.version: expected a whole number from 1 to 999999, got another number",
        ),
        (
            "event",
            "version = 1.5",
            "events.customer.version: expected a whole number from 1 to 999999, got a decimal number",
        ),
        (
            "event",
            "version = true",
            "events.customer.version: expected a whole number from 1 to 999999, got true or false",
        ),
        (
            "event",
            "version = 2024-01-01",
            "events.customer.version: expected a whole number from 1 to 999999, got a date or time",
        ),
        ("event", "key = []", "events.customer.key: expected at least one column, got an empty list"),
        ("event", "key = ['id', 'id']", "events.customer.key: column 2 is the same as column 1"),
        ("event", "key = ['*']", 'events.customer.key: expected column names, got "*"'),
        ("event", "key = ['nr']", "events.customer.key: every column of the key must also be listed in columns"),
        ("event", "key = 'id'", "events.customer.key: expected a list of column names, got text"),
        ("event", "key = ['id', 5]", "events.customer.key[1]: expected text, got a number"),
        (
            "event",
            "truncate = 'drop'",
            'events.customer.truncate: expected "apply", "ignore" or "halt", got other text',
        ),
        (
            "event",
            "unchanged_toast = 'x'",
            'events.customer.unchanged_toast: expected "reread", "partial" or "halt", got other text',
        ),
        ("event", "partitions = 2", "events.customer.partitions: not supported yet"),
        ("event", "previous = 1", "events.customer.previous: expected true or false, got a number"),
        (
            "event",
            "transform = 'shop.hooks'",
            'events.customer.transform: expected a function\'s name, like "shop.hooks:order", got other text',
        ),
        (
            "event",
            "unchanged_toast = 'partial'\ntransform = 'shop.hooks:customer'",
            'events.customer.transform: a function is shown whole rows only: unchanged_toast must be "reread" or'
            ' "halt"',
        ),
        ("event", "[sink.billing]\ntype = 'postgres'", 'sink: unknown key (did you mean "sinks"?)'),
        (
            "event",
            '[events."Bad\\nName"]\ntable = "t"\ncolumns = ["*"]',
            f'events."Bad\\nName": {NAME_RULE}, got other text',
        ),
        ("event", "[events.meta]\ntable = 't'\ncolumns = ['*']", f"events.meta: {NAME_RULE}"),
        (
            "event",
            "[events.other]\ntype = 'customer'\ntable = 't'\ncolumns = ['*']",
            "events.other: customer.v1 is also events.customer: give one of them another type or version",
        ),
    ],
)
def test_a_mistake_is_told_on_its_line(reader: ReadReader, section: str, line: str, mistake: str) -> None:
    before, after = AFTER[section]
    assert mistakes(reader, f"{before}{line}\n{after}") == [mistake]


@pytest.mark.parametrize(
    ("columns", "mistake"),
    [
        ("[]", "expected at least one column, got an empty list"),
        ("['id', 'a', 'id']", "column 3 is the same as column 1"),
        ("['id', '*']", '"*" stands for all columns and allows no other beside it'),
        ("['']", "column 1 is an empty name"),
        (f"['{'x' * 64}']", "column 1 is a name of 64 bytes (Postgres holds at most 63)"),
        ('["a\\u0000"]', "column 1 is a name with a NUL character"),
        ("'*'", 'expected a list of column names, or ["*"], got text'),
    ],
)
def test_a_mistake_in_columns_is_told_on_its_line(reader: ReadReader, columns: str, mistake: str) -> None:
    assert mistakes(reader, READER.replace('["id", "name"]', columns)) == [f"events.customer.columns: {mistake}"]


@pytest.mark.parametrize(
    ("table", "mistake"),
    [
        ("'a.b.c'", 'not a table\'s name: expected table or schema.table, like public."Order Lines"'),
        ("7", "expected a table's name as SQL writes it, got a number"),
    ],
)
def test_a_mistake_in_a_table_is_told_on_its_line(reader: ReadReader, table: str, mistake: str) -> None:
    assert mistakes(reader, READER.replace('"public.customers"', table)) == [f"events.customer.table: {mistake}"]


@pytest.mark.parametrize(
    ("url", "mistake"),
    [
        ("redis+cluster://x", "not supported yet"),
        ("redis+sentinel://x", "not supported yet"),
        (f"http://:{PASSWORD}@x", "expected a redis://, rediss:// or unix:// address, got another scheme"),
        (PASSWORD, "expected a redis://, rediss:// or unix:// address, got another scheme"),
        (f"redis://u:{PASSWORD}/@x", f"the port is not a number from 1 to 65535 ({ESCAPES})"),
        ("redis://x:0", "the port is not a number from 1 to 65535"),
        (
            f"redis://x/0?{PASSWORD}@x",
            f"there is more behind the host than a database's number and options ({ESCAPES})",
        ),
        (f"redis://u:1#{PASSWORD}", f"there is more behind the host than a database's number and options ({ESCAPES})"),
        (f"rediss://x/{PASSWORD}", "expected a database's number behind the host, like /0, or nothing"),
    ],
)
def test_a_mistake_in_the_transports_address_is_told_on_its_line(reader: ReadReader, url: str, mistake: str) -> None:
    assert mistakes(reader, READER, ENVIRON | {"REDIS_URL": url}) == [f"transport.url: {mistake}"]


@pytest.mark.parametrize("name", ["Shop", "1shop", "", "a" * 32, "shop\\n"])
def test_a_pipeline_has_a_short_plain_name(reader: ReadReader, name: str) -> None:
    rule = "pipeline.name: expected a name that matches [a-z][a-z0-9_]{0,30}, got other text"
    assert mistakes(reader, READER.replace("shop", name)) == [rule]


def test_an_empty_file_misses_each_required_key(reader: ReadReader) -> None:
    assert mistakes(reader, "") == [
        "pipeline.name: missing: expected a name that matches [a-z][a-z0-9_]{0,30}",
        "source.dsn: missing: expected a libpq URI or keyword string",
        "transport.url: missing: expected a redis://, rediss:// or unix:// address",
        "events: missing: expected at least one section [events.NAME]",
    ]


def test_all_mistakes_are_told_at_once(reader: ReadReader) -> None:
    text = (
        "extra = 1\n"
        + PIPELINE.replace("shop", "Shop")
        + "[source]\nsnapshot = 5\n"
        + TRANSPORT
        + "retain = '1'\n"
        + "[events.a]\ncolumns = []\nfoo_bar_baz = 1\npartitions = 2\n[events.b]\ntable = 't'\ntype = 'B'\n"
    )
    assert [line.split(": ")[0] for line in mistakes(reader, text, {})] == [
        "extra",
        "pipeline.name",
        "source.dsn",
        "source.snapshot",
        "transport.url",
        "transport.retain",
        "events.a.partitions",
        "events.a.foo_bar_baz",
        "events.a.table",
        "events.a.columns",
        "events.b.columns",
        "events.b.type",
    ]


def test_a_section_that_is_none_is_told_once(reader: ReadReader) -> None:
    assert mistakes(reader, "source = 5\n" + PIPELINE + TRANSPORT + EVENT) == [
        "source: expected a section, got a number"
    ]
    assert mistakes(reader, PIPELINE + SOURCE + TRANSPORT + "[events]\ncustomer = 5\n") == [
        "events.customer: expected a section, got a number"
    ]
    assert mistakes(reader, "events = []\n" + PIPELINE + SOURCE + TRANSPORT) == [
        "events: expected a section, got a list"
    ]


# Mistakes of a sink's section


@pytest.mark.parametrize(
    ("line", "mistake"),
    [
        ("type = 'mysql'", 'sinks.billing.type: expected "postgres", got other text'),
        ("adopt = 1", "sinks.billing.adopt: expected true or false, got a number"),
        ("adpot = true", 'sinks.billing.adpot: unknown key (did you mean "adopt"?)'),
        (
            "max_parked_in_a_row = -1",
            "sinks.billing.max_parked_in_a_row: expected a whole number of events, from 0 on, got another number",
        ),
        (
            'max_parked_in_a_row = "many"',
            "sinks.billing.max_parked_in_a_row: expected a whole number of events, from 0 on, got text",
        ),
        ("dsn = 5", "sinks.billing.dsn: expected a libpq URI or keyword string, got a number"),
        ("dsn = ''", "sinks.billing.dsn: the value is empty"),
    ],
)
def test_a_mistake_of_a_sink_is_told_on_its_line(sink: ReadSink, line: str, mistake: str) -> None:
    kept = [old for old in SINK.splitlines() if old.split(" = ")[0] != line.split(" = ")[0]]
    assert mistakes(sink, PIPELINE + TRANSPORT + "\n".join([*kept, line, TABLES])) == [mistake]


@pytest.mark.parametrize(
    ("line", "mistake"),
    [
        ("order = 'replica.customers'", "order: the same table as sinks.billing.tables.customer"),
        ("'customer.v1' = 'b'", '"customer.v1": the same event as sinks.billing.tables.customer'),
        ("Order = 'b'", "Order: expected an event type, like customer, or one version of it, like customer.v2"),
        (
            "order.latest = 'b'",
            "order.latest: expected an event type, like customer, or one version of it, like customer.v2",
        ),
        ("order = 'a.b.c'", 'order: not a table\'s name: expected table or schema.table, like public."Order Lines"'),
        ("order = 5", "order: expected a table's name as SQL writes it, got a number"),
        ("order = {}", "order: expected a table's name as SQL writes it, got a section"),
    ],
)
def test_a_mistake_of_a_sinks_tables_is_told_on_its_line(sink: ReadSink, line: str, mistake: str) -> None:
    assert mistakes(sink, WORKER + line) == [f"sinks.billing.tables.{mistake}"]


@pytest.mark.parametrize("tables", ["", "[sinks.billing.tables]"])
def test_a_sink_needs_at_least_one_table(sink: ReadSink, tables: str) -> None:
    assert mistakes(sink, PIPELINE + TRANSPORT + SINK + tables) == [
        'sinks.billing.tables: missing: expected at least one line like customer = "replica.customers"'
    ]


def test_an_unknown_sink_is_told_with_the_names_there_are(sink: ReadSink) -> None:
    assert mistakes(sink, WORKER + "[sinks.crm]\n", name="biling") == [
        "sinks.biling: no such sink (the file has billing, crm)"
    ]
    assert mistakes(sink, PIPELINE + TRANSPORT) == [
        "sinks.billing: no such sink (the file has no section [sinks.NAME])"
    ]


def test_a_sink_has_a_plain_name(sink: ReadSink) -> None:
    assert mistakes(sink, WORKER.replace("sinks.billing", "sinks.Billing"), name="Billing") == [
        "sinks.Billing: expected a name that matches [a-z][a-z0-9_]{0,62}, got other text"
    ]


# The file itself


def test_a_missing_file_is_a_configuration_error(tmp_path: Path) -> None:
    path = tmp_path / "none.toml"
    assert mistakes(load_reader_config, path, {}) == [f"{path}: No such file or directory"]
    with pytest.raises(ConfigurationError) as caught:
        load_reader_config(path, {})
    assert "`cdc init` writes it" in caught.value.remedy
    assert ConfigurationError(["x"]).exit_code == EXIT_USAGE


def test_broken_toml_is_told_with_its_line(reader: ReadReader, tmp_path: Path) -> None:
    (problem,) = mistakes(reader, f'[pipeline]\nname = "shop"\nkey = {PASSWORD}"\n')
    assert problem.startswith(f"{tmp_path / 'cdc.toml'}: not TOML: ")
    assert "line 3" in problem


def test_bytes_that_are_no_text_are_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "cdc.toml").write_bytes(b"\xff\xfe")
    (problem,) = mistakes(load_reader_config, tmp_path / "cdc.toml", {})
    assert "not TOML: " in problem


# Secrets


@pytest.mark.parametrize(
    ("text", "revealed"),
    [
        ("plain", "plain"),
        ("${A}", "one"),
        ("x${A}y${A}", "xoneyone"),
        ("${UNSET:-two}${EMPTY:-three}${A:-four}", "twothreeone"),
        ("a${UNSET:-}", "a"),
        ("$${A}", "${A}"),
        ("$$$$", "$$"),
        ("${DOLLAR}", "$x${A}$$"),
    ],
)
def test_a_secret_takes_parts_from_the_environment(text: str, revealed: str) -> None:
    environ = {"A": "one", "EMPTY": "", "DOLLAR": "$x${A}$$"}
    assert Secret.parse(text, environ).reveal() == revealed


@pytest.mark.parametrize("text", ["$", "$A", "${", "${}", "${A", "${1}", "${A:+x}", "${file:}", "a$ b"])
def test_a_dollar_sign_that_begins_nothing_is_a_mistake(reader: ReadReader, text: str) -> None:
    assert mistakes(reader, READER.replace("${SOURCE_DSN}", text), ENVIRON | {"A": "b"}) == [
        'source.dsn: "$" must begin ${NAME}, ${NAME:-default} or ${file:PATH} (write $$ for a dollar sign)'
    ]


def test_each_missing_variable_is_told_with_the_keys_path(reader: ReadReader) -> None:
    text = READER.replace("${SOURCE_DSN}", "host=${PGHOST} password=${PGPASS} user=${PGHOST}")
    assert mistakes(reader, text, {}) == [
        "source.dsn: environment variable PGHOST is not set",
        "source.dsn: environment variable PGPASS is not set",
        "transport.url: environment variable REDIS_URL is not set",
    ]


def test_an_empty_variable_is_told_as_empty(reader: ReadReader) -> None:
    assert mistakes(reader, READER, ENVIRON | {"SOURCE_DSN": ""}) == ["source.dsn: the value is empty"]


def test_a_secret_file_is_read_again_at_each_reveal(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("old\n")
    secret = Secret.parse(f"password=${{file:{file}}} user=cdc", {})
    assert secret.reveal() == "password=old user=cdc"
    file.write_text("new $$ ${A}\r\n")
    assert secret.reveal() == "password=new $$ ${A} user=cdc"


def test_a_secret_file_that_vanishes_is_worth_another_try(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("old")
    secret = Secret.parse(f"${{file:{file}}}", {})
    file.unlink()
    with pytest.raises(SecretUnreadable, match="No such file") as refusal:
        secret.reveal()
    assert refusal.value.retryable


def test_a_secret_file_that_is_missing_or_no_text_is_a_mistake(reader: ReadReader, tmp_path: Path) -> None:
    file = tmp_path / "key"
    text = READER.replace("${SOURCE_DSN}", f"${{file:{file}}}")
    assert mistakes(reader, text) == [f"source.dsn: cannot read the file '{file}': No such file or directory"]
    file.write_bytes(b"\xff" + PASSWORD.encode())
    assert mistakes(reader, text) == [f"source.dsn: cannot read the file '{file}': not UTF-8 text"]


def test_references_work_only_where_secrets_are(reader: ReadReader) -> None:
    (problem,) = mistakes(reader, READER.replace("shop", "${NAME}"), ENVIRON | {"NAME": "shop"})
    assert problem.startswith("pipeline.name: expected a name")


def test_a_planted_secret_is_never_shown(
    reader: ReadReader, sink: ReadSink, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    configured, worker = reader(READER), sink(WORKER)
    dumped = [section.model_dump() for section in (configured.source, configured.transport)]
    dumped_json = [section.model_dump_json() for section in (configured.source, configured.transport)]
    secret = Secret(PASSWORD)
    logging.getLogger("test").warning("%s %r", configured, secret)
    for shown in (configured, configured.source, configured.transport, worker, dumped, dumped_json, secret):
        assert PASSWORD not in f"{shown} {shown!r} {shown!s:>9}"
    assert PASSWORD not in caplog.text


@pytest.mark.parametrize("value", [f'"{PASSWORD}.x.y"', f'["{PASSWORD}", "*"]', f'{{ a = "{PASSWORD}" }}'])
@pytest.mark.parametrize(
    "line",
    [
        *('snapshot = "initial"', 'slot = "cdc_shop"', 'name = "shop"', 'url = "${REDIS_URL}"', 'truncate = "halt"'),
        *('table = "public.customers"', 'columns = ["id", "name"]', 'key = ["id"]', "version = 1", "rename = {}"),
        *("no_such_key = 1", 'type = "customer"', "partitions = 1"),
    ],
)
def test_a_secret_under_the_wrong_key_is_never_shown(reader: ReadReader, line: str, value: str) -> None:
    text = PIPELINE + SOURCE + 'snapshot = "initial"\nslot = "cdc_shop"\n' + TRANSPORT + EVENT + 'truncate = "halt"\n'
    text += 'key = ["id"]\nversion = 1\nrename = {}\nno_such_key = 1\ntype = "customer"\npartitions = 1\n'
    with pytest.raises(ConfigurationError) as refusal:
        reader(text.replace(line, f"{line.split(' = ')[0]} = {value}"))
    error = refusal.value
    assert PASSWORD not in f"{error} {error!r} {error.remedy} {error.__cause__!r} {error.__context__!r}"
