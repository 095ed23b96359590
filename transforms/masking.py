"""Masks: values that are published so that nobody can read them.

- `hash`: the HMAC-SHA-256 of the value's text, as Postgres writes it in the reader's sessions, under the pipeline's
  key, with the key's id before it: `k1:6d1f...`. The same value gives the same text wherever it stands, in snapshots,
  changes, keys and deletes, so that hashes can be joined on; without the key no list of likely values can be tried.
- `redact`: the same text for every value.
- `null`: nothing at all.

NULL stays NULL. A mask takes the value where it is decoded: nothing behind that has ever seen it.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import orjson

from transforms.row import NULL_JSON, Mask

MaskName: TypeAlias = Literal["hash", "redact", "null"]

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

REDACTED: Final = "[redacted]"
_BLOCK: Final = 64  # bytes of SHA-256's
LEAST_KEY_CHARACTERS: Final = 16
"""A shorter key could be guessed by whoever knows one value and its hash."""


@dataclass(frozen=True, slots=True)
class Masks:
    """The masks of a pipeline."""

    hash_key: bytes | None = field(default=None, repr=False)
    hash_key_id: str = "k1"

    def of(self, name: MaskName | None) -> Mask | None:
        """The mask of this name. Raises ValueError where it needs a key and there is none."""
        if name is None:
            return None
        if name != "hash":
            return NULL_JSON if name == "null" else orjson.dumps(REDACTED)
        if self.hash_key is None:
            raise ValueError("a hash needs a key")
        opening = orjson.dumps(self.hash_key_id + ":")[:-1].decode()
        inner, outer = _begun(self.hash_key)

        def encode(text: bytes) -> bytes:
            digest = inner.copy()
            digest.update(text)
            whole = outer.copy()
            whole.update(digest.digest())
            return f'{opening}{whole.hexdigest()}"'.encode()

        return encode

    @property
    def fingerprint(self) -> str:
        """Tells one key from another, and nothing of it."""
        if self.hash_key is None:
            return ""
        return hmac.digest(self.hash_key, self.hash_key_id.encode(), "sha256").hex()[:16]


def _begun(key: bytes) -> tuple[Hash, Hash]:
    """The two hashes of an HMAC, with the key in them: to copy them takes a third of what `hmac.digest` does.

    Source: https://www.rfc-editor.org/rfc/rfc2104 (section 2)
    """
    block = (key if len(key) <= _BLOCK else hashlib.sha256(key).digest()).ljust(_BLOCK, b"\0")
    inner, outer = (hashlib.sha256(bytes(byte ^ pad for byte in block)) for pad in (0x36, 0x5C))
    return inner, outer
