"""Redis as the reader uses it: connecting, redis-py's exceptions turned into ours, and what is there at a start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import redis

from cdc.errors import TransportError, TransportFull, TransportNotTrusted, TransportRefused, TransportUnreachable
from cdc.redis_link import client
from transforms.address import Address, is_untrusted, redis_refusal, tls_mismatch
from transforms.keys import Keys
from transforms.position import LSN, START, Position
from transforms.redis_server import is_too_old

_TRANSIENT = (
    "LOADING",
    "READONLY",
    "MASTERDOWN",
    "TRYAGAIN",
    "CLUSTERDOWN",
    "BUSY",
    "MISCONF",
    "NOREPLICAS",
    "UNBLOCKED",
)


class EntryTooLarge(TransportError):
    """Redis does not take an entry of this size."""

    remedy = "Leave the large column out of `columns`, or raise Redis' proto-max-bulk-len."


_REFUSED_FOR_NOW = (
    redis.exceptions.ReadOnlyError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.MasterDownError,
    redis.exceptions.TryAgainError,
)
CONNECT_SECONDS = 5.0
REPLY_SECONDS = 30.0


def connect(address: Address) -> redis.Redis:
    """A client for the transport; it connects when it is first used. Raises what `redis_link.client` raises."""
    return client(address, connect_timeout_seconds=CONNECT_SECONDS, timeout_seconds=REPLY_SECONDS)


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turn redis-py's exceptions into ours."""
    try:
        yield
    except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as error:
        raise TransportRefused(f"Redis refuses: {redis_refusal(str(error))}") from error
    except redis.exceptions.OutOfMemoryError as error:
        raise TransportFull(f"Redis is out of memory: {error}") from error
    except redis.exceptions.InvalidResponse as error:  # whose text is what the server sent
        raise TransportUnreachable("what answers at transport.url is not Redis") from error
    except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
        if (mismatch := tls_mismatch(str(error))) is not None:
            raise TransportNotTrusted(mismatch[0], remedy=mismatch[1]) from error
        if is_untrusted(str(error)):
            raise TransportNotTrusted(f"Redis' TLS cannot be trusted: {error}") from error
        raise TransportUnreachable(f"Redis does not answer: {error}") from error
    except _REFUSED_FOR_NOW as error:  # redis-py takes the code off the text
        raise TransportUnreachable(f"Redis refuses for now: {error}") from error
    except redis.exceptions.NoScriptError as error:
        raise TransportUnreachable("Redis has emptied its script cache") from error
    except redis.ResponseError as error:
        raise refusal(str(error)) from error


def refusal(text: str) -> TransportError:
    """The error for what Redis answered."""
    code = text.split(" ", 1)[0]
    if code == "OOM" or "maxmemory" in text:
        return TransportFull(f"Redis is out of memory: {text}")
    if code in _TRANSIENT:
        return TransportUnreachable(f"Redis refuses for now: {text}")
    if "bulk length" in text or "ERANGE" in text or "too large" in text:
        return EntryTooLarge(text)
    if "executing the script" in text:  # Redis 7.0 does not say which
        return TransportRefused(f"{text}: xadd, xinfo, xtrim or xpending")
    return TransportRefused(text)


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What `cdc check` judges of a Redis or Valkey server."""

    product: str
    version: str
    eviction: str
    append_only: bool | None
    """None: the server does not tell."""
    role: str
    used_memory: int
    max_memory: int
    """0: no limit."""

    @property
    def too_old(self) -> bool:
        """Whether streams lack what is needed."""
        return is_too_old(self.product, self.version)


def server_facts(client: redis.Redis) -> ServerFacts:
    """Product, version and the settings on which the promise rests (INFO, which needs no CONFIG right).

    Raises TransportError.
    """
    with translated_errors():
        info = client.info()
    valkey = info.get("valkey_version")
    append_only = info.get("aof_enabled")
    return ServerFacts(
        "Valkey" if valkey else "Redis",
        str(valkey or info["redis_version"]),
        str(info.get("maxmemory_policy", "")),
        None if append_only is None else bool(int(append_only)),
        str(info.get("role", "master")),
        int(info.get("used_memory", 0)),
        int(info.get("maxmemory", 0)),
    )


class TransportState:
    """What Redis holds of a pipeline: its meta hash, and where each stream ends."""

    def __init__(self, client: redis.Redis, keys: Keys, streams: Sequence[str]) -> None:
        """Read it. `streams`: those the configuration names. Raises TransportError."""
        with translated_errors():
            raw: dict[bytes, bytes] = cast(Any, client.hgetall(keys.meta))
            self.meta = {name.decode(): value.decode() for name, value in raw.items()}
            self.epoch = int(self.meta.get("epoch", "1"))
            kept = [name.removeprefix("last:") for name in self.meta if name.startswith("last:")]
            self.stream_ends = {
                stream: _last_id(client, keys.stream(stream, self.epoch)) for stream in dict.fromkeys((*streams, *kept))
            }
            self.run_id = str(client.info("server").get("run_id", ""))

    @property
    def life(self) -> str:
        """Which streams these are: others in another epoch, and after `cdc drop` and a new start."""
        return f"{self.meta.get('incarnation', '')}@{self.epoch}"

    @property
    def published(self) -> LSN:
        """Up to which every stream has everything."""
        return LSN.parse(self.meta.get("published", "0/0"))

    def kept_last_id(self, stream: str) -> Position:
        """The last id that was stored for a stream together with `published`."""
        return Position.parse(self.meta.get(f"last:{stream}", "0-0"))


def _last_id(client: redis.Redis, key: str) -> Position:
    try:
        info = client.xinfo_stream(key)
    except redis.ResponseError as error:
        if "no such key" in str(error):
            return START
        raise
    return Position.parse(info["last-generated-id"].decode())
