"""Redis as the reader uses it: connecting, redis-py's exceptions turned into ours, and what is there at a start."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import redis

from cdc.errors import TransportError, TransportFull, TransportNotTrusted, TransportRefused, TransportUnreachable
from cdc.redis_link import client
from transforms.address import Address, is_untrusted, redis_refusal, tls_mismatch
from transforms.durability import MEMORY, Durability
from transforms.keys import Keys
from transforms.position import LSN, START, Position
from transforms.redis_server import has_waitaof, is_too_old

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


class NotKeptOnDisk(TransportError):
    """Redis cannot say what is on its disk, which is what `transport.durability` = "fsync" waits for."""

    remedy = (
        "Run `CONFIG SET appendonly yes` in Redis, and put `appendonly yes` into its configuration file; or, where the"
        ' service does not offer that, set transport.durability to "memory" or "replicas:N".'
    )


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
    if "WAITAOF" in text and ("appendonly is disabled" in text or "unknown command" in text):
        return NotKeptOnDisk(f"Redis cannot say what is on its disk: {text}")
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
    replicas: int = 0
    """How many are connected."""
    append_fsync: str | None = None
    """`always`, `everysec` or `no`; None: it was not asked for, or the server does not tell."""

    @property
    def too_old(self) -> bool:
        """Whether streams lack what is needed."""
        return is_too_old(self.product, self.version)

    @property
    def can_wait_for_fsync(self) -> bool:
        """Whether it says when something is on its disk."""
        return has_waitaof(self.product, self.version)


def server_facts(client: redis.Redis, durability: Durability = MEMORY) -> ServerFacts:
    """Product, version and the settings on which the promise rests: INFO, which needs no CONFIG right.

    `durability`: what is configured; where it needs to know more and the server lets it, that is asked for.
    Raises TransportError.
    """
    with translated_errors():
        info = client.info()
    valkey = info.get("valkey_version")
    append_only = info.get("aof_enabled")
    facts = ServerFacts(
        "Valkey" if valkey else "Redis",
        str(valkey or info["redis_version"]),
        str(info.get("maxmemory_policy", "")),
        None if append_only is None else bool(int(append_only)),
        str(info.get("role", "master")),
        int(info.get("used_memory", 0)),
        int(info.get("maxmemory", 0)),
        int(info.get("connected_slaves", 0)),
    )
    if durability.kind == "fsync" and not facts.can_wait_for_fsync:
        return replace(facts, append_fsync=told_append_fsync(client))
    return facts


def told_append_fsync(client: redis.Redis) -> str | None:
    """What `appendfsync` is; None: the server, or our user's rights, do not let it be read. Raises TransportError."""
    with translated_errors():
        try:
            told = cast(Any, client.config_get("appendfsync"))
        except redis.ResponseError:  # NOPERM, or a service that has renamed CONFIG
            return None
    return cast(str | None, told.get("appendfsync"))


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """Which process answers, and which history of writes it has."""

    run_id: str
    replication_id: str

    def change_since(self, before: ServerIdentity) -> str:
        """In words, where it is not the same."""
        if self.run_id != before.run_id:
            return f"is another process than before (run id {self.run_id}, was {before.run_id})"
        return f"has another history than before (replication id {self.replication_id}, was {before.replication_id})"


def _identity(info: dict[str, Any]) -> ServerIdentity:
    return ServerIdentity(str(info.get("run_id", "")), str(info.get("master_replid", "")))


@dataclass(frozen=True, slots=True)
class Attestation:
    """What one server says of a pipeline at one moment."""

    identity: ServerIdentity
    life: str
    """See `TransportState.life`."""
    published: LSN
    copies: int
    """What it answered to WAIT or WAITAOF; 0: it was not asked."""


class Attestor:
    """Asks, on a connection of its own, what Redis holds and how safe that is. All methods raise TransportError."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def attest(self, question: Sequence[str] | None) -> Attestation:
        """Look, and ask `question` (WAIT or WAITAOF, with its arguments) for everything that the look has seen."""
        with translated_errors():
            pipe: Any = self._client.pipeline(transaction=False)  # one connection, in this order
            pipe.execute_command("INFO", "server", "replication")
            pipe.hmget(self._keys.meta, "incarnation", "epoch", "published")
            if question is not None:
                pipe.set(self._keys.asked, str(time.time()))
                pipe.execute_command(*question)
            answers: list[Any] = pipe.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, Exception):
                with translated_errors():
                    raise answer
        info, (incarnation, epoch, published) = answers[:2]
        copies = 0 if question is None else answers[3]
        return Attestation(
            _identity(info),
            f"{(incarnation or b'').decode()}@{int(epoch or 1)}",
            LSN.parse((published or b"0/0").decode()),
            copies[0] if isinstance(copies, list) else copies,
        )


class TransportState:
    """What Redis holds of a pipeline: its meta hash, and where each stream ends."""

    def __init__(self, client: redis.Redis, keys: Keys, streams: Sequence[str]) -> None:
        """Read it. `streams`: those the configuration names. Raises TransportError."""
        with translated_errors():
            self.identity = _identity(cast(Any, client.info("server", "replication")))  # before what it vouches for
            raw: dict[bytes, bytes] = cast(Any, client.hgetall(keys.meta))
            self.meta = {name.decode(): value.decode() for name, value in raw.items()}
            self.epoch = int(self.meta.get("epoch", "1"))
            kept = [name.removeprefix("last:") for name in self.meta if name.startswith("last:")]
            self.stream_ends = {
                stream: _last_id(client, keys.stream(stream, self.epoch)) for stream in dict.fromkeys((*streams, *kept))
            }

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
