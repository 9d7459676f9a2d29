"""What takes up space in a workspace and its model registry, and the facts that decide whether it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from rankline.registry.registry_state import Event

Kind = Literal[
    "run", "cache", "checkpoint", "bundle", "weights", "catalogue", "evidence", "online", "claim", "fetched", "leftover"
]
KINDS: tuple[Kind, ...] = get_args(Kind)  # `claim` is a firing, `fetched` a download, `leftover` a partial file


@dataclass(frozen=True)
class Inode:
    """One name of a file: which file it is, how many names it has in all, and its size in bytes."""

    identity: tuple[int, int]
    links: int
    bytes: int


@dataclass(frozen=True)
class Resource:
    """Something that takes up space."""

    kind: Kind
    name: str  # as people know it
    path: str  # below the workspace, or below the repository
    at: float  # when it was last written, in unix seconds
    files: tuple[Inode, ...] = ()
    stored: int = 0  # bytes in a bucket, where a file has one name

    @property
    def bytes(self) -> int:
        """Its size, whether or not its files have other names."""
        return self.stored + sum(file.bytes for file in self.files)


@dataclass(frozen=True)
class StepWork:
    """What the ledger says of one step of a run."""

    key: str
    outputs: Mapping[str, str]  # output -> digest
    finished: bool


@dataclass
class Inventory:
    """What is in a workspace and its repository; the facts are by name, or by path for the cache."""

    resources: tuple[Resource, ...] = ()
    history: tuple[Event, ...] = ()
    running: set[str] = field(default_factory=set)  # runs that are under way
    groups: dict[str, str] = field(default_factory=dict)  # run -> its recipe and flow
    awaited_runs: set[str] = field(default_factory=set)  # runs of firings that have not ended
    work: dict[str, dict[str, StepWork]] = field(default_factory=dict)  # run -> step -> what it did
    cache_outputs: dict[str, dict[str, str]] = field(default_factory=dict)  # cache entry -> output -> digest
    latest: set[str] = field(default_factory=set)  # cache entries that a changed step is compared with
    services: dict[str, str] = field(default_factory=dict)  # model -> the feature service it reads; "" unknown
    ignored: list[str] = field(default_factory=list)  # what is not examined, and why
    unreadable: set[str] = field(default_factory=set)  # runs with a summary that cannot be read
    other_histories: list[tuple[Event, ...]] = field(default_factory=list)  # of other repositories that are named
