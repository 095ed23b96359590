"""How Redis is connected to, so that it is told why a server hangs up or says nothing.

Where an address says TLS and there is none, a Redis waits for the end of what it takes for a line, and its client for a
handshake; the other way round the server hangs up. Neither end says why. And a Redis that is sent more than it takes
says so and hangs up while the rest is still on its way.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
from typing import Any, cast

import redis

from transforms.address import NO_HANDSHAKE, PLAIN_SERVER, TLS_SERVER, Address
from transforms.config import ConfigurationError

_PROBE_SECONDS = 0.5
"""How long a server that has just taken a connection is given to say which of the two it speaks."""
_HUNG_UP = (redis.ConnectionError, redis.exceptions.InvalidResponse)
"""Exactly these: a kind derived from them is what a Redis said."""


def client(address: Address, *, connect_timeout_seconds: float, timeout_seconds: float) -> redis.Redis:
    """A client, which connects when it is first used. Raises ConfigurationError, NotEncrypted, SecretUnreadable.

    The first limit is for the TCP connection, and again for the TLS handshake; the second is for each reply.
    """
    url = address.reveal()
    options: dict[str, Any] = dict(address.redis_tls())
    if url.startswith("unix:"):
        options["connection_class"] = _UnixConnection
    else:
        options["socket_keepalive"] = True
        options["connection_class"] = _TlsConnection if url.startswith("rediss:") else _PlainConnection
    try:
        made = redis.Redis.from_url(
            url,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=connect_timeout_seconds,
            retry=None,
            **options,
        )
        pool = made.connection_pool
        pool.connection_class(**pool.connection_kwargs)  # reads the options, and connects nowhere
    except TypeError as error:
        name = re.search(r"argument '(\w+)'", str(error))
        raise ConfigurationError([f"transport.url: unknown option {name[1] if name else ''}".rstrip()]) from None
    except (ValueError, redis.RedisError):  # whose messages repeat parts of the URL
        raise ConfigurationError(["transport.url: an option has a value that it cannot have"]) from None
    return made


class _HearsRefusals(redis.connection.AbstractConnection):
    """A connection which, when the server hangs up on what is being sent, raises what it has said before that."""

    _is_sending = False
    _refusal: redis.ResponseError | None = None

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        self._is_sending, self._refusal = True, None
        try:
            super().send_packed_command(command, check_health)  # type: ignore[no-untyped-call]
        except redis.ConnectionError as error:
            if self._refusal is not None:
                raise self._refusal from error
            raise
        finally:
            self._is_sending = False

    def disconnect(self, *args: Any, **options: Any) -> None:
        if self._is_sending and cast(Any, self)._sock is not None:  # it failed: the last chance to hear
            self._is_sending = False
            self._listen()
        super().disconnect(*args, **options)  # type: ignore[no-untyped-call]

    def _listen(self) -> None:
        with contextlib.suppress(redis.ConnectionError, redis.TimeoutError, OSError):
            while self._refusal is None and self.can_read(timeout=0):  # it has arrived before the end did
                try:
                    self.read_response(disconnect_on_error=False)
                except redis.ResponseError as said:
                    self._refusal = said


class _UnixConnection(_HearsRefusals, redis.UnixDomainSocketConnection):
    """A connection to a socket file."""


class _TlsConnection(_HearsRefusals, redis.SSLConnection):
    """A TLS connection whose handshake has the time limit of connecting."""

    def _wrap_socket_with_ssl(self, sock: socket.socket) -> Any:
        sock.settimeout(self.socket_connect_timeout)
        try:
            encrypted = super()._wrap_socket_with_ssl(sock)  # type: ignore[no-untyped-call]
        except TimeoutError:
            raise OSError(PLAIN_SERVER if _speaks_plainly(self.host, self.port) else NO_HANDSHAKE) from None
        except (FileNotFoundError, PermissionError) as error:  # which name no file
            raise OSError(f"a certificate file that transport.url names: {error.strerror}") from error
        encrypted.settimeout(self.socket_timeout)
        return encrypted


class _PlainConnection(_HearsRefusals, redis.Connection):
    """A connection without TLS, which looks for TLS where the server hangs up on it."""

    def connect(self) -> None:
        try:
            super().connect()  # type: ignore[no-untyped-call]
        except (redis.ConnectionError, redis.exceptions.InvalidResponse) as error:
            if type(error) in _HUNG_UP and _speaks_tls(self.host, self.port):
                raise redis.ConnectionError(TLS_SERVER) from error
            raise


def _speaks_plainly(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), _PROBE_SECONDS) as probe:
        probe.sendall(b"PING\r\n")
        return probe.recv(1) in (b"+", b"-")
    return False


def _speaks_tls(host: str, port: int) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent after the handshake
    try:
        with socket.create_connection((host, port), _PROBE_SECONDS) as probe, context.wrap_socket(probe):
            return True
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "")
    except OSError:
        return False
