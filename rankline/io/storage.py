"""Storage: file systems behind fsspec URLs, with retries, and the settings that name them.

For `s3://` the credentials and the endpoint come from where every AWS tool takes them (`AWS_ACCESS_KEY_ID`,
`AWS_SECRET_ACCESS_KEY`, `AWS_ENDPOINT_URL`, profiles, instance roles), never from a setting.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import fsspec
from fsspec.implementations.local import LocalFileSystem
from pydantic import Field, model_validator

from rankline.contracts import FrozenModel
from rankline.errors import RanklineError, StorageError
from rankline.io.files import first_line

# botocore waits up to 1, 2, 4, 8 seconds between attempts; its environment variables override both
MAX_ATTEMPTS, TIMEOUT_S = 5, 20


class FeatureStoreConfig(FrozenModel):
    """The stores of Feast. Passwords are no settings: they are in PGPASSWORD and REDIS_PASSWORD."""

    offline: Literal["duckdb", "postgres"] = Field(
        default="duckdb", description="Where point-in-time joins run: DuckDB over Parquet files, or Postgres tables."
    )
    registry: Literal["file", "postgres"] = Field(
        default="file", description="Feast's registry of definitions: a file beside the features, or Postgres."
    )
    online: Literal["sqlite", "redis"] = Field(
        default="sqlite", description="Online store that the server reads: a SQLite file in the workspace, or Redis."
    )
    postgres: str = Field(
        default="",
        pattern=r"^([^@/:\s]+@[^@/:\s]+(:[0-9]+)?/[^@/:\s]+)?$",
        description="Postgres as user@host:port/database; the password is in PGPASSWORD.",
    )
    postgres_sslmode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] = Field(
        default="prefer", description="TLS mode of Postgres connections, as in libpq."
    )
    redis: str = Field(
        default="",
        pattern=r"^([^@/:,\s]+:[0-9]+(,(db|ssl|username|ssl_cert_reqs|ssl_ca_certs)=[^,]+)*)?$",
        description="Redis as host:port,db=0,ssl=true; the password is in REDIS_PASSWORD.",
    )
    project: str = Field(
        default="rankline",
        pattern=r"^[a-z][a-z0-9_]*$",
        description="Name in a shared registry and in Redis; every catalogue needs its own.",
    )
    lock_timeout_s: float = Field(default=60.0, gt=0, description="How long to wait for a locked registry.")

    @property
    def lineage(self) -> dict[str, Any]:
        """The settings that may change the computed features; empty for stores without servers."""
        return self.model_dump(exclude_defaults=True, include={"offline", "registry", "postgres"})

    @model_validator(mode="after")
    def _require_addresses(self) -> FeatureStoreConfig:
        if "postgres" in (self.offline, self.registry) and not self.postgres:
            raise ValueError("offline or registry is postgres: postgres=user@host:port/database is needed")
        if self.online == "redis" and not self.redis:
            raise ValueError("online is redis: redis=host:port is needed")
        return self


class StorageConfig(FrozenModel):
    """Where the results of runs are stored."""

    workspace: str = Field(
        default="",
        description="Bucket URL or folder that takes the place of a shared workspace; empty: steps share the "
        "workspace's own folder.",
    )
    repository: str = Field(
        default="", description="Model registry: folder or bucket URL; empty for the workspace's own."
    )
    artifacts: str = Field(
        default="",
        description="Remote step cache, shared by several machines: folder or bucket URL; empty for none.",
    )
    checkpoints: str = Field(
        default="", description="Folder or bucket URL that checkpoints are copied to while training; empty for none."
    )
    group_shared: bool = Field(
        default=False,
        description="Whether the group of a step's user, too, may read and write what steps write to a volume.",
    )
    features: FeatureStoreConfig = FeatureStoreConfig()

    @property
    def resolved(self) -> StorageConfig:
        """The settings with what `workspace` is the default of: folders below it."""
        if not self.workspace:
            return self
        defaults = {name: f"{self.workspace.rstrip('/')}/{name}" for name in ("repository", "artifacts", "checkpoints")}
        return self.model_copy(update={name: getattr(self, name) or url for name, url in defaults.items()})


def open_filesystem(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path in it; one behind a network retries and raises StorageError.

    Raises:
        StorageError: no installed package opens such a URL.
    """
    protocol = url.split("://", 1)[0] if "://" in url else "file"
    if (written := re.match(r"([a-z][a-z0-9]+):/(?!/)", url)) and written[1] in fsspec.available_protocols():
        raise StorageError(
            "a URL has two slashes after its colon",
            expected=f"{written[1]}://…",
            found=url,
            where=url,
            hint=f"{url.replace(':/', '://', 1)}, or ./{url} for a folder of that name",
        )
    try:
        fs, root = fsspec.core.url_to_fs(url, **_filesystem_options(protocol))
    except (ImportError, ValueError) as error:
        raise StorageError(
            f"no installed package opens {protocol}:// URLs",
            expected="a folder, or a URL whose fsspec library is installed",
            found=first_line(error),
            where=url,
            hint="for s3:// `pip install 'rankline[s3]'`",
        ) from error
    except (TypeError, AttributeError, OSError) as error:  # of protocols that wrap another one: reference, dir, zip
        raise StorageError(
            f"{protocol}:// opens no storage by itself",
            expected="a folder, or a URL such as s3://bucket/folder",
            found=first_line(error),
            where=url,
            hint="name the folder or the bucket itself",
        ) from error
    return (NetworkFileSystem(fs, root) if getattr(fs, "async_impl", False) else fs), root


def modified_time(info: Mapping[str, Any]) -> float:
    """When a file was written, in unix seconds, by what a file system says of it."""
    modified = info.get("LastModified") or info.get("last_modified")
    return float(modified.timestamp() if modified is not None else info.get("mtime", 0.0))


def is_local(fs: Any) -> bool:
    """Whether a file system is local."""
    return isinstance(fs, LocalFileSystem)


def _filesystem_options(protocol: str) -> dict[str, Any]:
    """The retries of a bucket, by the library's own means."""
    if protocol in ("http", "https"):
        return _http_retry_options()
    if protocol not in ("s3", "s3a"):
        return {}
    attempts = int(os.environ.get("AWS_MAX_ATTEMPTS", MAX_ATTEMPTS))
    return {
        "config_kwargs": {
            "retries": {"mode": os.environ.get("AWS_RETRY_MODE", "standard"), "total_max_attempts": attempts},
            "connect_timeout": TIMEOUT_S,
            "read_timeout": TIMEOUT_S,
        },
        "use_listings_cache": False,
    }


@functools.cache  # fsspec keeps one client per set of options
def _http_retry_options() -> dict[str, Any]:
    """The same retries for HTTP, whose client has none."""
    import asyncio
    import random

    import aiohttp

    async def retry(request: Any, handler: Any) -> Any:
        for attempt in range(1, MAX_ATTEMPTS):
            with contextlib.suppress(aiohttp.ClientConnectionError):
                response = await handler(request)
                if response.status not in (429, 500, 502, 503, 504):
                    return response
                response.release()
            await asyncio.sleep(random.uniform(0, min(2 ** (attempt - 1), 8)))
        return await handler(request)

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT_S, sock_read=TIMEOUT_S)
    return {"client_kwargs": {"middlewares": (retry,), "timeout": timeout}}


class NetworkFileSystem:
    """A file system behind a network whose methods raise our errors."""

    def __init__(self, inner: Any, root: str) -> None:
        self.inner, self._root = inner, root

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.inner, name)
        if not callable(attribute):
            return attribute

        @functools.wraps(attribute)
        def call(*args: Any, **kwargs: Any) -> Any:
            with translate_errors(self._root):
                return attribute(*args, **kwargs)

        return call


@contextmanager
def translate_errors(where: str) -> Iterator[None]:
    """Turn every exception but FileNotFoundError and FileExistsError, which callers handle, into StorageError."""
    try:
        yield
    except (RanklineError, FileNotFoundError, FileExistsError):
        raise
    except Exception as error:  # every store's library has exceptions of its own
        code = _error_code(error) or _error_code(error.__cause__)
        if code in ("PreconditionFailed", "412", "ConditionalRequestConflict", "409"):
            raise FileExistsError(where) from error
        cause = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):  # of botocore
            raise StorageError(
                "there are no credentials for the store",
                expected="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or a role",
                found=cause,
                where=where,
                hint="set them in the environment; on a cluster by cluster.secrets",
            ) from error
        if isinstance(error, PermissionError) or code in ("403", "AccessDenied", "InvalidAccessKeyId"):
            raise StorageError(
                "the store refuses these credentials",
                expected="permission to read and write",
                found=cause,
                where=where,
                hint="check AWS_ACCESS_KEY_ID, AWS_PROFILE and the bucket's policy",
            ) from error
        raise StorageError(
            "the store does not respond as it should",
            expected=f"a response within {MAX_ATTEMPTS} attempts",
            found=cause,
            where=where,
            hint="check that the store is up and that AWS_ENDPOINT_URL is right, then run again: "
            "finished steps are reused",
        ) from error


def _error_code(error: BaseException | None) -> str:
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""
