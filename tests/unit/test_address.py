"""Beyond this machine a connection is encrypted and the server's certificate is checked, unless the section says so."""

from __future__ import annotations

import pytest

from transforms.address import Address, AddressMisread, NotEncrypted, is_local, postgres_mistake
from transforms.redis_server import is_too_old
from transforms.secret import Secret

AUTHORITIES = "/etc/authorities.pem"
PASSWORD = "hunter2-planted"


def at(url: str = "", *, allow_plaintext: bool = False, section: str = "source") -> Address:
    return Address(section, Secret(url), allow_plaintext)


@pytest.mark.parametrize(
    "parameters",
    [
        {},  # libpq's default: the Unix socket
        {"host": "/var/run/postgresql"},
        {"host": "@abstract"},
        {"host": "localhost"},
        {"host": "LOCALHOST."},
        {"host": "127.0.0.1"},
        {"host": "127.9.9.9"},
        {"host": "::1"},
        {"host": "localhost,127.0.0.1"},
        {"host": "db.example.com", "hostaddr": "127.0.0.1"},  # a tunnel
    ],
)
@pytest.mark.parametrize("mode", [{}, {"sslmode": "disable"}, {"sslmode": "require"}])
def test_on_this_machine_the_dsn_decides(parameters: dict[str, str], mode: dict[str, str]) -> None:
    assert at().postgres_tls(parameters | mode, AUTHORITIES) == {}


@pytest.mark.parametrize(
    "parameters",
    [
        {"host": "db.example.com"},
        {"host": "localhost.example.com"},
        {"host": "10.0.0.1"},
        {"host": "localhost,db.example.com"},
        {"host": "localhost", "hostaddr": "10.0.0.1"},
        {"service": "shop"},
        {"host": "localhost", "service": "shop"},
    ],
)
def test_beyond_it_the_certificate_is_checked(parameters: dict[str, str]) -> None:
    full = {"sslmode": "verify-full"}
    assert at().postgres_tls(parameters, AUTHORITIES) == full | {"sslrootcert": AUTHORITIES}
    assert at().postgres_tls(parameters | full, AUTHORITIES) == full | {"sslrootcert": AUTHORITIES}
    assert at().postgres_tls(parameters | {"sslrootcert": "own.pem"}, AUTHORITIES) == full
    assert at(allow_plaintext=True).postgres_tls(parameters | {"sslmode": "disable"}, AUTHORITIES) == {}


@pytest.mark.parametrize("mode", ["disable", "allow", "require", "verify-ca"])
def test_a_dsn_that_asks_for_less_is_refused_with_the_section_that_decides(mode: str) -> None:
    with pytest.raises(NotEncrypted, match=f"sinks.billing: sslmode={mode}") as refusal:
        at(section="sinks.billing").postgres_tls({"host": "db", "sslmode": mode, "password": PASSWORD}, AUTHORITIES)
    assert "allow_plaintext = true in [sinks.billing]" in refusal.value.remedy
    assert PASSWORD not in str(refusal.value) + refusal.value.remedy


@pytest.mark.parametrize(
    "url",
    ["redis://localhost:6379/0", "redis://:pw@127.0.0.1", "redis://[::1]:1", "unix:///run/redis.sock", "redis://"],
)
def test_redis_on_this_machine_may_speak_plainly(url: str) -> None:
    assert at(url).redis_tls() == {}


def test_redis_beyond_it_must_show_a_certificate() -> None:
    checked = {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
    assert at("rediss://cache.example.com").redis_tls() == checked
    assert at("rediss://cache.example.com?ssl_ca_certs=own.pem").redis_tls() == checked
    assert at("redis://cache.example.com", allow_plaintext=True).redis_tls() == {}


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://u:hunter2-planted@cache.example.com:6379/0", "in the clear"),
        ("redis://10.0.0.1", "in the clear"),
        ("rediss://cache.example.com?ssl_cert_reqs=none", "unchecked"),
        ("rediss://cache.example.com?ssl_cert_reqs=optional", "unchecked"),
        ("rediss://cache.example.com?ssl_check_hostname=False", "unchecked"),
    ],
)
def test_a_url_that_asks_for_less_is_refused(url: str, reason: str) -> None:
    with pytest.raises(NotEncrypted, match=reason) as refusal:
        at(url, section="transport").redis_tls()
    assert "allow_plaintext = true in [transport]" in refusal.value.remedy
    assert PASSWORD not in str(refusal.value) + refusal.value.remedy


@pytest.mark.parametrize("host", ["0.0.0.0", "", "example", "128.0.0.1", "fe80::1", "localhostile"])
def test_what_is_not_loopback(host: str) -> None:
    assert not is_local(host)


@pytest.mark.parametrize(
    ("product", "version", "too_old"),
    [("Redis", "6.2.14", True), ("Redis", "7.0.0", False), ("Valkey", "7.1.9", True), ("Valkey", "10.0", False)],
)
def test_which_servers_are_too_old(product: str, version: str, too_old: bool) -> None:
    assert is_too_old(product, version) is too_old


def test_a_dsn_has_a_host_and_numbers_for_ports() -> None:
    assert postgres_mistake({"host": "a,b,c", "port": "5432,,5433"}) is postgres_mistake({}) is None


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [({"port": "hunter2"}, "the port is not a number"), ({"host": "hunter2@x"}, "the host holds an @")],
)
def test_a_password_that_has_got_into_host_or_port_is_told_without_it(parameters: dict[str, str], reason: str) -> None:
    mistake = postgres_mistake(parameters) or ""
    assert mistake.startswith(reason)
    assert "hunter2" not in mistake


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:p@hunter2-planted@db/shop",
        "postgres://me:p/hunter2-planted@db/shop",
        "postgresql://me:p@hunter2/planted:5#1@db/shop?sslmode=verify-full",
        "postgresql://me:p@hunter2?planted@db/shop",
        "postgresql://me:cGE/hunter2=planted==@db/shop",
        "redis://:p@hunter2/planted@cache:6379",
        "rediss://:p#hunter2-planted@cache",
        "redis://u:p?hunter2-planted@cache/0",
    ],
)
def test_a_password_that_would_end_early_is_refused_and_not_told(url: str) -> None:
    with pytest.raises(AddressMisread, match=r"^sinks\.billing: ") as refusal:
        at(url, section="sinks.billing").reveal()
    told = str(refusal.value) + refusal.value.remedy
    assert "@ is %40" in told
    assert "hunter2" not in told
    assert "planted" not in told


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:p%40ss%2Fw%3Ard%231@db/shop",
        "postgresql://me:pw#1?2@db/shop",  # libpq looks for @ and / only
        "postgresql://db/shop?user=me@tenant&password=p@ss",
        "postgresql:///shop?host=@abstract",
        "postgresql://",
        "host=db password=p@ss/w@rd",
        "redis://:p@ss@cache:6379/0",  # urllib takes the last @
        "rediss://me:p%2Fss@cache?ssl_ca_certs=/etc/a@b.pem",
        "unix://:pw@/run/redis.sock",
    ],
)
def test_a_url_that_clients_read_as_it_is_meant_is_taken(url: str) -> None:
    assert at(url).reveal() == url
