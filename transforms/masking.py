"""Masks: values that are published so that nobody can read them.

- `hash`: the HMAC-SHA-256 of the value's text, as Postgres writes it in the reader's sessions, under the pipeline's
  key, with the key's id before it: `k1:6d1f...`. The same value gives the same text wherever it stands, in snapshots,
  changes, keys and deletes, so that hashes can be joined on; without the key no list of likely values can be tried.
- `redact`: the same text for every value.
- `null`: nothing at all.

NULL stays NULL. A mask takes the value where it is decoded: nothing behind that has ever seen it.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

import orjson

from transforms.row import NULL_JSON, Mask

MaskName: TypeAlias = Literal["hash", "redact", "null"]

REDACTED: Final = "[redacted]"
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
        key, opening = self.hash_key, orjson.dumps(self.hash_key_id + ":")[:-1]

        def encode(text: bytes) -> bytes:
            return b'%b%b"' % (opening, hmac.digest(key, text, "sha256").hex().encode())

        return encode

    @property
    def fingerprint(self) -> str:
        """Tells one key from another, and nothing of it."""
        if self.hash_key is None:
            return ""
        return hmac.digest(self.hash_key, self.hash_key_id.encode(), "sha256").hex()[:16]


NO_KEY: Final = Masks()
"""All but `hash`."""
