"""Ids of users hashed with a key: HMAC-SHA256, in Python and as a macro of DuckDB.

The key comes from an environment variable and goes nowhere else: settings name the variable, cache keys and summaries
hold a fingerprint.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import Any

from rankline.errors import UsageError

MIN_KEY_BYTES = 16
_BLOCK = hashlib.sha256().block_size
_FINGERPRINT_OF = b"fingerprint of a key of Rankline"


class UserKey:
    """A key, whose value nothing shows."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def from_environment(cls, variable: str) -> UserKey:
        """The key in an environment variable.

        Raises:
            UsageError: the variable is not set, or its value is too short for a key.
        """
        value = os.environ.get(variable, "")
        if len(value.encode()) < MIN_KEY_BYTES:
            raise UsageError(
                "the key that hashes the ids of users is missing" if not value else "the key is too short",
                expected=f"the environment variable {variable} with at least {MIN_KEY_BYTES} bytes",
                found=f"{len(value.encode())} bytes" if value else "it is not set",
                where="ingest.hash_users",
                hint=f"export {variable}=… with the key of the earlier runs; on a cluster set "
                f"cluster.secrets.{variable}=SECRET/KEY (`openssl rand -hex 32` makes a new key)",
            )
        return cls(value.encode())

    def __repr__(self) -> str:
        return f"UserKey({self.fingerprint})"

    @property
    def fingerprint(self) -> str:
        """What tells one key from another."""
        return hmac.new(self._key, _FINGERPRINT_OF, hashlib.sha256).hexdigest()[:16]

    def hash(self, user_id: str) -> str:
        """The hash of an id."""
        return hmac.new(self._key, user_id.encode(), hashlib.sha256).hexdigest()

    def add_macro(self, db: Any, name: str) -> None:
        """Give a DuckDB the function ``name``(id), which hashes as `hash` does; the key is in no statement."""
        key = self._key if len(self._key) <= _BLOCK else hashlib.sha256(self._key).digest()
        block = key.ljust(_BLOCK, b"\0")
        for part, pad in (("inner", 0x36), ("outer", 0x5C)):
            db.execute(f"SET VARIABLE {name}_{part} = $1", [bytes(byte ^ pad for byte in block)])
        inner = f"sha256(getvariable('{name}_inner') || encode(id))"
        db.execute(f"CREATE TEMP MACRO {name}(id) AS sha256(getvariable('{name}_outer') || unhex({inner}))")
