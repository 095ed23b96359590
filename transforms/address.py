"""Where a server is, and what the way there must hold: beyond this machine, TLS with a certificate that was checked.

A password and every row cross that way. TLS that checks nothing (libpq's `require`) stops only who listens, not who
stands in between. `allow_plaintext = true` in the section leaves the matter to the DSN or URL as it is written.
Source: https://www.postgresql.org/docs/current/libpq-ssl.html#LIBPQ-SSL-PROTECTION
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, urlsplit

from transforms.errors import EXIT_USAGE, StatecastError
from transforms.secret import Secret

_VERIFIED: Final = "verify-full"
_UNTRUSTED_TEXTS = (
    "certificate verify failed",  # OpenSSL, in both clients
    "does not match host name",  # libpq
    "Hostname mismatch",
    "server does not support SSL",
    "root certificate file",
    "wrong version number",  # TLS was begun with a server that speaks none
    "record layer failure",
)
PLAIN_SERVER: Final = "Redis speaks plain text, and transport.url asks for TLS (rediss://)"
TLS_SERVER: Final = "Redis speaks TLS, and transport.url does not ask for it (redis://)"
NO_HANDSHAKE: Final = "the server takes connections and answers no TLS handshake"
_ESCAPES: Final = "in a user name or password write %2F for /, %3F for ?, %23 for # and %40 for @"


class NotEncrypted(StatecastError):
    """A DSN or URL asks for a connection that others can read or answer."""

    remedy = "Ask for TLS that checks the server's certificate, or set allow_plaintext = true in the section."


class AddressMisread(StatecastError):
    """A URL whose password ends early, so that the rest of it would be taken for a server's or a database's name."""

    exit_code = EXIT_USAGE
    remedy = (
        "Percent-encode user and password in the URL: @ is %40, / is %2F, : is %3A, # is %23, ? is %3F, and % itself"
        " is %25."
    )


@dataclass(frozen=True, slots=True)
class Address:
    """A DSN or URL, with the section of the configuration that it stands in."""

    section: str
    """As TOML writes it: `source`, `transport`, `sinks.billing`."""
    secret: Secret
    allow_plaintext: bool = False

    def reveal(self) -> str:
        """The DSN or URL itself. Raises SecretUnreadable, AddressMisread."""
        text = self.secret.reveal()
        if _is_misread(text):
            raise AddressMisread(f"{self.section}: user or password holds a character that ends it early in a URL")
        return text

    def postgres_tls(self, parameters: Mapping[str, str], authorities: str) -> dict[str, str]:
        """The libpq parameters to add to those of the DSN, libpq's defaults included. Raises NotEncrypted.

        `authorities`: the file with the certificates that this machine trusts. It is for servers with a certificate of
        a public authority; who has one of their own names it in the DSN (`sslrootcert`) or puts it where libpq looks.
        """
        if self.allow_plaintext or _is_postgres_local(parameters):
            return {}
        mode = parameters.get("sslmode") or "prefer"  # libpq's own default: encrypted if the server happens to offer it
        if mode not in ("prefer", _VERIFIED):
            raise NotEncrypted(
                f"{self.section}: sslmode={mode} does not make sure that it is the database that answers",
                remedy=f"Write sslmode={_VERIFIED} (with sslrootcert=FILE for an authority of your own),"
                f" or set allow_plaintext = true in [{self.section}].",
            )
        return {"sslmode": _VERIFIED} | ({} if parameters.get("sslrootcert") else {"sslrootcert": authorities})

    def redis_tls(self) -> dict[str, object]:
        """The options to add to those of the URL. Raises NotEncrypted."""
        url = urlsplit(self.reveal())
        if self.allow_plaintext or url.scheme == "unix" or is_local(url.hostname or "localhost"):
            return {}
        remedy = f"Write rediss:// (TLS), or set allow_plaintext = true in [{self.section}]."
        if url.scheme != "rediss":
            raise NotEncrypted(f"{self.section}: redis:// sends passwords and rows in the clear", remedy=remedy)
        options = {name: values[-1].lower() for name, values in parse_qs(url.query).items()}
        unchecked = options.get("ssl_cert_reqs", "required") not in ("required", "cert_required", "2")
        if unchecked or options.get("ssl_check_hostname", "true") in ("false", "0", "no", "f", "n"):
            raise NotEncrypted(
                f"{self.section}: the URL's options leave the certificate unchecked",
                remedy="Take ssl_cert_reqs and ssl_check_hostname out of the URL (ssl_ca_certs=FILE names an authority"
                f" of your own), or set allow_plaintext = true in [{self.section}].",
            )
        return {"ssl_cert_reqs": "required", "ssl_check_hostname": True}


def _is_misread(url: str) -> bool:
    """Whether an @ is left where host, port and database stand: clients would quote that part in their messages."""
    scheme, _, rest = url.partition("://")
    if scheme in ("postgresql", "postgres"):  # libpq ends user and password at the first @, and at a / before it
        end = re.search("[@/]", rest)
        rest = rest[end.end() :] if end and end[0] == "@" else rest
    elif scheme in ("redis", "rediss"):  # urllib ends them at the last @ before the first / ? or #
        rest = re.sub("^[^/?#]*", "", rest)
    else:
        return False
    place, _, options = rest.partition("?")
    return "@" in place or "@" in options.partition("=")[0]


def is_untrusted(text: str) -> bool:
    """Whether a client library's message says that TLS failed for want of a certificate that can be trusted."""
    return any(part in text for part in _UNTRUSTED_TEXTS)


def tls_mismatch(text: str) -> tuple[str, str] | None:
    """What a client's message says, and what mends it, where one end speaks TLS to Redis and the other does not."""
    if PLAIN_SERVER in text:
        return PLAIN_SERVER, (
            "Let Redis listen with TLS (its tls-port), or write redis:// in transport.url and, beyond this machine,"
            " set allow_plaintext = true in [transport]."
        )
    return (TLS_SERVER, "Write rediss:// in transport.url.") if TLS_SERVER in text else None


def redis_mistake(url: str) -> str | None:
    """What makes a redis:// or rediss:// URL unusable, without a word of it, or None."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return f"the port is not a number from 1 to 65535 ({_ESCAPES})"
    if port == 0:
        return "the port is not a number from 1 to 65535"
    if parts.fragment or "@" in parts.path + parts.query:
        return f"there is more behind the host than a database's number and options ({_ESCAPES})"
    if not re.fullmatch(r"/?|/[0-9]+", parts.path):
        return "expected a database's number behind the host, like /0, or nothing"
    return None


def postgres_mistake(parameters: Mapping[str, str]) -> str | None:
    """What makes libpq parameters unusable, without a word of them, or None."""
    if "@" in parameters.get("host", ""):  # from there the password would get into every message of libpq
        return f"the host holds an @ ({_ESCAPES})"
    if not re.fullmatch(r"[0-9]*(,[0-9]*)*", parameters.get("port", "")):
        return f"the port is not a number ({_ESCAPES})"
    return None


def redis_refusal(text: str) -> str:
    """What Redis says to one it does not let in, in plain words: without a password it speaks of its protocol."""
    if "HELLO must be called" in text or "Authentication required" in text:
        return "it wants a password, and transport.url names none"
    return text


def is_local(host: str) -> bool:
    """Whether a host's name or address is that of this machine's loopback."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def _is_postgres_local(parameters: Mapping[str, str]) -> bool:
    if parameters.get("service"):
        return False  # its file may name any host
    hosts = parameters.get("hostaddr") or parameters.get("host") or ""
    return all(not host or host[0] in "/@" or is_local(host) for host in hosts.split(","))
