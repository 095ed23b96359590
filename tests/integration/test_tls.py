"""Beyond loopback every link is encrypted, and ends where the server cannot show who it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.processes import Pipeline, closing
from tests.tls import BEYOND_LOOPBACK, Certificates, tls_in_front_of

PASSWORD = "hunter2-planted"
CONFIGURATION = """
[events.customer]
table = "customers"
columns = ["id", "name"]
[sinks.billing]
type = "postgres"
dsn = "${TARGET_DSN}"
[sinks.billing.tables]
customer = "public.customers_copy"
"""
LINKS = ("source", "transport", "target")


class Links:
    """The three links, each by default straight to its server on loopback."""

    def __init__(self, stack: ExitStack, directory: Path, source_dsn: str, redis_url: str, target_dsn: str) -> None:
        self._stack = stack
        self._certificates = Certificates(directory)
        self._redis = urlsplit(redis_url)
        self._dsn = {"source": source_dsn, "target": target_dsn}
        self.environment: dict[str, str] = {"TARGET_DSN": target_dsn}

    def beyond_loopback(self, link: str, kind: str | None) -> None:
        """Let a link lead to a server beyond loopback: with this kind of certificate, or without TLS."""
        port = self._port(link)
        if kind is not None:
            context = self._certificates.context(kind)
            port = self._stack.enter_context(tls_in_front_of(port, context, postgres=link != "transport"))
        self.environment |= self._variable(link, port)

    def plainly(self, link: str) -> None:
        """Let a link ask for less than a checked certificate."""
        port = self._port(link)
        if link == "transport":
            self.environment["REDIS_URL"] = f"redis://:{PASSWORD}@{BEYOND_LOOPBACK}:{port}/0"
        else:
            self.environment |= {
                name: make_conninfo(dsn, sslmode="require") for name, dsn in self._variable(link, port).items()
            }

    def _port(self, link: str) -> int:
        return self._redis.port or 6379 if link == "transport" else int(conninfo_to_dict(self._dsn[link])["port"] or 0)

    def _variable(self, link: str, port: int) -> dict[str, str]:
        if link == "transport":
            authorities = f"ssl_ca_certs={self._certificates.file}"
            return {"REDIS_URL": f"rediss://{BEYOND_LOOPBACK}:{port}{self._redis.path}?{authorities}"}
        authorities = str(self._certificates.file)
        dsn = make_conninfo(
            self._dsn[link], host=BEYOND_LOOPBACK, port=port, password=PASSWORD, sslrootcert=authorities
        )
        return {f"{link.upper()}_DSN": dsn}


@pytest.fixture
def links(source_dsn: str, redis_url: str, target_dsn: str, tmp_path: Path) -> Iterator[Links]:
    with ExitStack() as stack:
        yield Links(stack, tmp_path, source_dsn, redis_url, target_dsn)


@pytest.fixture
def shop(source_dsn: str, redis_url: str, pipeline_name: str, links: Links, tmp_path: Path) -> Iterator[Pipeline]:
    with psycopg.connect(source_dsn) as connection:
        connection.execute("CREATE TABLE customers (id int PRIMARY KEY, name text)")
        connection.execute("INSERT INTO customers VALUES (1, 'Ada')")
    pipeline = Pipeline(pipeline_name, source_dsn, redis_url, tmp_path, CONFIGURATION, links.environment)
    with closing(pipeline) as made:
        yield made


def run(shop: Pipeline, link: str, links: Links, expect: int) -> str:
    """Run what uses a link; returns what was printed."""
    shop.environment |= links.environment
    if link == "target":
        plain = shop.environment | {"SOURCE_DSN": shop.source_dsn, "REDIS_URL": shop.redis_url}
        shop.environment, whole = plain, shop.environment
        shop.run("cdc.cli", "run", "--once")
        shop.environment = whole
        return shop.run("sinks.cli", "run", "billing", "--once", expect=expect)
    return shop.run("cdc.cli", "run", "--once", expect=expect)


def test_rows_cross_three_links_whose_certificates_are_good(shop: Pipeline, links: Links, target_dsn: str) -> None:
    for link in LINKS:
        links.beyond_loopback(link, "good")
    shop.environment |= links.environment
    shop.run("cdc.cli", "run", "--once")
    shop.run("sinks.cli", "run", "billing", "--once")
    with psycopg.connect(target_dsn) as connection:
        assert connection.execute("SELECT * FROM public.customers_copy").fetchall() == [(1, "Ada")]


NO_TLS = None
REASONS = {
    "unknown authority": ["certificate verify failed"],
    "expired": ["certificate verify failed"],
    "wrong name": ["elsewhere.example", "certificate verify failed"],
    NO_TLS: ["server does not support SSL", "Redis speaks plain text"],
}


@pytest.mark.parametrize(("link", "kind"), [(link, kind) for link in LINKS for kind in REASONS])
def test_a_server_that_cannot_show_who_it_is_ends_the_command(
    shop: Pipeline, links: Links, link: str, kind: str | None
) -> None:
    links.beyond_loopback(link, kind)
    output = run(shop, link, links, expect=3)
    assert any(reason in output for reason in REASONS[kind]), output
    assert "set allow_plaintext = true in [" in output
    assert PASSWORD not in output


@pytest.mark.parametrize("command", ["cdc.cli run --once", "cdc.cli check", "sinks.cli run billing --once"])
def test_a_redis_that_speaks_no_tls_is_told_soon(shop: Pipeline, redis_url: str, command: str) -> None:
    shop.environment["REDIS_URL"] = redis_url.replace("redis://", "rediss://")
    output = shop.run(*command.split(), expect=1 if "check" in command else 3, seconds=25)
    assert "Redis speaks plain text, and transport.url asks for TLS (rediss://)" in output


@pytest.mark.parametrize("command", ["cdc.cli run --once", "sinks.cli run billing --once"])
def test_a_redis_that_speaks_tls_is_told_where_the_url_does_not_ask_for_it(
    shop: Pipeline, redis_url: str, tmp_path: Path, command: str
) -> None:
    url = urlsplit(redis_url)
    with tls_in_front_of(url.port or 6379, Certificates(tmp_path).context("good"), postgres=False) as port:
        shop.environment["REDIS_URL"] = f"redis://:{PASSWORD}@127.0.0.1:{port}{url.path}"
        output = shop.run(*command.split(), expect=3)
    assert "error: Redis speaks TLS, and transport.url does not ask for it (redis://)" in output
    assert "remedy: Write rediss:// in transport.url." in output
    assert PASSWORD not in output


@pytest.mark.parametrize("link", LINKS)
def test_what_is_not_checked_is_refused_before_anything_is_sent(shop: Pipeline, links: Links, link: str) -> None:
    links.plainly(link)
    output = run(shop, link, links, expect=3)
    section = "sinks.billing" if link == "target" else link
    assert f"error: {section}: " in output
    assert f"set allow_plaintext = true in [{section}]" in output
    assert PASSWORD not in output


def test_allow_plaintext_lets_it_pass(shop: Pipeline, links: Links) -> None:
    links.beyond_loopback("source", None)
    dsn = make_conninfo(links.environment["SOURCE_DSN"], sslmode="disable")
    shop.environment |= {"SOURCE_DSN": dsn}
    text = shop.path.read_text()
    shop.path.write_text(text.replace("[source]\n", "[source]\nallow_plaintext = true\n"))
    shop.run("cdc.cli", "run", "--once")
