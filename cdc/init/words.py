"""Names of tables and columns as the words they are made of."""

from __future__ import annotations

import re
import unicodedata

_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def words(name: str) -> list[str]:
    """Lower-case ASCII words: `HomeAddress`, `home_address` and `HOME ADDRESS` are all `home`, `address`.

    Accents are dropped, and letters that have no ASCII form part words as a space does.
    """
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", name) if not unicodedata.combining(letter))
    return re.findall(r"[a-z0-9]+", _BOUNDARY.sub("_", plain.replace("ß", "ss")).lower())
