"""Secrets in the query of a URL, recognized by their names."""

from __future__ import annotations

import re
from urllib.parse import unquote

MASK = "***"
# sslkey is the path of a file, and no secret
_ANY = r"[^=&;#?\s\"']*"
_NAME = rf"{_ANY}(?:password|passwd|pwd|token|secret|signature|credential|api_?key)|(?:{_ANY}[_.-])?(?:sig|key)"
_SECRET = re.compile(rf"(?i)(?<=[?&;#])({_NAME})=[^&;#\s\"'<>\\]+")
_PASSWORD = re.compile(r"(\w+://[^\s/:@\"']*):[^\s\"']*@")
_BEARER = re.compile(r"(?i)\b(bearer)\s+[\w.~+/=-]+")
_AUTHORIZATION = re.compile(r"(?i)(authorization[\\\"']*\s*[:=][\s\\\"']*(?:(?:basic|bearer|token)\s+)?)[^\s\\\"',}]+")


def secret_name(url: str) -> str:
    """The name of the first value in a URL that looks like a secret; empty without one."""
    match = _SECRET.search(unquote(url))
    return match[1] if match else ""


def has_password(url: str) -> bool:
    """Whether there is a password in front of the host, which may have a / in it."""
    return _PASSWORD.search(url) is not None


def mask_secrets(text: str) -> str:
    """The text without passwords in URLs, without secrets in their queries and without those of headers."""
    text = _PASSWORD.sub(rf"\1:{MASK}@", text)
    text = _SECRET.sub(rf"\1={MASK}", text)
    return _BEARER.sub(rf"\1 {MASK}", _AUTHORIZATION.sub(rf"\1{MASK}", text))
