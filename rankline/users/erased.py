"""The users that were erased from a workspace: a list of keyed hashes, which ingest leaves out of every table.

    <workspace>/erased/key         a random key, made by the first erasure
    <workspace>/erased/users.txt   the hash of one id per line
    <workspace>/erased/normalised.txt   the same of the ids as each choice of normalisations writes them

The list holds no id. Who can read the key can ask of an id whether it is on the list, as ingest does.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection
from pathlib import Path

from rankline.errors import IntegrityError
from rankline.io import digest
from rankline.io.files import create_exclusively, write_bytes
from rankline.users.hashing import UserKey

FOLDER = "erased"
KEY, USERS, NORMALISED = "key", "users.txt", "normalised.txt"


class ErasedUsers:
    """The list in a folder, which need not be there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = _read(folder / KEY)
        self.hashes = tuple(_read(folder / USERS).split())
        self.normalised = tuple(_read(folder / NORMALISED).split())
        if self.hashes and not self._key:
            raise IntegrityError(
                "the list of erased users has lost its key, so nobody can be recognised by it",
                expected=f"the file {KEY}",
                found="no such file",
                where=str(folder),
                hint=f"restore {KEY} from a backup, or remove {USERS} and erase those users again",
            )

    def __len__(self) -> int:
        return len(self.hashes)

    @property
    def key(self) -> UserKey:
        """The key of the hashes."""
        return UserKey(self._key.encode())

    @property
    def digest(self) -> str:
        """What changes with the list; empty for an empty list."""
        hashes = sorted({*self.hashes, *self.normalised})
        return digest.json_digest([self.key.fingerprint, hashes])[:16] if self.hashes else ""

    def holds(self, user_id: str) -> bool:
        """Whether a user was erased."""
        return bool(self.hashes) and self.key.hash(user_id) in self.hashes

    def add(self, ids: Collection[str], normalised: Collection[str] = ()) -> None:
        """Add users to the list; ``normalised`` are their ids as normalisations write them, with the tag of those."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._key:
            create_exclusively(self.folder / KEY, secrets.token_hex(32).encode(), durable=True)
            os.chmod(self.folder / KEY, 0o600)
            self._key = _read(self.folder / KEY)
        self.normalised = self._write(NORMALISED, {*self.normalised, *map(self.key.hash, normalised)})
        self.hashes = self._write(USERS, {*self.hashes, *map(self.key.hash, ids)})

    def _write(self, name: str, hashes: Collection[str]) -> tuple[str, ...]:
        lines = "".join(f"{each}\n" for each in sorted(hashes))
        if lines:
            write_bytes(self.folder / name, lines.encode(), durable=True)
        return tuple(sorted(hashes))


def _read(path: Path) -> str:
    return path.read_text().strip() if path.is_file() else ""
