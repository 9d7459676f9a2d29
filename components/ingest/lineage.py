"""The lineage of ingest: the source, the users that were erased, and the key that hashes users."""

from __future__ import annotations

from typing import Any

from components.ingest.config import IngestConfig
from rankline.runtime.lineage import LineageFacts
from rankline.runtime.run_context import RunContext
from rankline.users.erased import FOLDER, ErasedUsers
from rankline.users.hashing import UserKey


def lineage(config: IngestConfig, facts: LineageFacts) -> dict[str, Any]:
    """The digests of the source and of the erased users, and the fingerprint of the key; the last two if there are any.

    Raises:
        UsageError: the key is missing.
    """
    key = UserKey.from_environment(config.hash_users).fingerprint if config.hash_users else ""
    erased = "" if config.only_items else erased_users(facts.run).digest
    optional = {"erased users": erased, "key of user ids": key}
    return {"source": facts.source, **{name: value for name, value in optional.items() if value}}


def erased_users(run: RunContext) -> ErasedUsers:
    """The users that were erased from a run's workspace."""
    run.download(FOLDER)
    return ErasedUsers(run.workspace / FOLDER)
