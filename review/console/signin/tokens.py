"""Tokens for scripts: the file holds their sha256 only, and each has a name and a role."""

from __future__ import annotations

import contextlib
import hmac
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from rankline.contracts import FrozenModel
from rankline.errors import UsageError
from rankline.io.files import locked, read_model, replacing
from review.console.signin.identity import Identity, Role

PREFIX = "rankline_"  # secret scanners recognize it, and it distinguishes them from a proxy's own bearer tokens


class Token(FrozenModel):
    """A token without its secret."""

    name: str
    role: Role
    sha256: str
    at: str


class TokenFile(FrozenModel):
    """The content of a token file."""

    tokens: tuple[Token, ...] = ()

    def identity(self, token: str) -> Identity | None:
        """The script with this token; None if there is none."""
        digest = sha256(token.encode()).hexdigest()
        matches = [each for each in self.tokens if hmac.compare_digest(each.sha256, digest)]
        return Identity(name=f"token:{matches[0].name}", role=matches[0].role, is_script=True) if matches else None


def read_tokens(path: Path) -> TokenFile:
    """Read a token file; one that is missing has no tokens.

    Raises:
        UsageError: others than its owner can read or write it, or it is damaged.
    """
    if not path.exists():
        return TokenFile()
    if path.stat().st_mode & 0o077:
        raise UsageError(
            "the token file is open to others",
            expected="mode 0600",
            found=f"mode {path.stat().st_mode & 0o777:04o}",
            where=str(path),
            hint=f"chmod 600 {path}; replace its tokens if others may have written it",
        )
    return read_model(path, TokenFile, what="the token file", error=UsageError, missing="", damaged="create it again")


def add_token(path: Path, name: str, role: Role) -> str:
    """Create a token and return it; a second one with the name is refused, so that a name has one meaning.

    Raises:
        UsageError: the name is empty, too long or taken.
    """
    if not name.strip() or len(name) > 100 or not name.isprintable():
        raise UsageError("a token needs a name", expected="up to 100 printable characters", found=repr(name[:100]))
    token = PREFIX + secrets.token_urlsafe(32)
    with _changing(path) as tokens:
        if any(each.name == name for each in tokens):
            raise UsageError(
                f"there is a token named {name} already",
                expected="another name",
                found=name,
                where=str(path),
                hint=f"`rankline review token {name} --revoke` ends the old one",
            )
        at = datetime.now(UTC).isoformat(timespec="seconds")
        _write(path, [*tokens, Token(name=name, role=role, sha256=sha256(token.encode()).hexdigest(), at=at)])
    return token


def revoke_token(path: Path, name: str) -> None:
    """End a token; running consoles refuse it from their next request on.

    Raises:
        UsageError: there is none with this name.
    """
    with _changing(path) as tokens:
        remaining = [each for each in tokens if each.name != name]
        if len(remaining) == len(tokens):
            names = ", ".join(each.name for each in tokens) or "none, there are no tokens"
            raise UsageError(f"there is no token named {name}", expected=names, found=name, where=str(path))
        _write(path, remaining)


@contextlib.contextmanager
def _changing(path: Path) -> Iterator[tuple[Token, ...]]:
    """The tokens of a file, while no other process changes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f".{path.name}.lock")):
        yield read_tokens(path).tokens


def _write(path: Path, tokens: list[Token]) -> None:
    content = TokenFile(tokens=tuple(tokens)).model_dump_json(indent=2) + "\n"
    with replacing(path, durable=True) as partial:
        partial.touch(mode=0o600, exist_ok=False)
        partial.write_text(content)
