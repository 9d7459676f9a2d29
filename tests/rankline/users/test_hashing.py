"""DuckDB hashes ids as Python's own HMAC does, and nothing shows the key."""

from __future__ import annotations

import duckdb
import pyarrow as pa
import pytest

from rankline.users.hashing import UserKey


@pytest.mark.parametrize("secret", ["a key that is long enough", "k" * 64, "long " * 40, "schlüssel-schlüssel"])
def test_duckdb_and_python_hash_alike(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANY_KEY", secret)
    key = UserKey.from_environment("ANY_KEY")
    ids = ["", "u1", "ü", "日本", "x" * 300, "a'b\"c", *map(str, range(50))]
    with duckdb.connect() as db:
        key.add_macro(db, "hash_user")
        db.register("users", pa.table({"id": ids}))
        assert [each for (each,) in db.execute("SELECT hash_user(id) FROM users").fetchall()] == [*map(key.hash, ids)]
        assert db.execute("SELECT hash_user(NULL)").fetchall() == [(None,)]
    assert secret not in repr(key)
    assert secret not in key.fingerprint
