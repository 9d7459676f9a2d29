"""Tiny models, and a workspace whose registry has some of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rankline.model.bundle import Bundle
from rankline.registry.model_registry import ModelRegistry
from rankline.registry.registry_state import Event
from tests.review.console.process import RunningConsole, running_console
from tests.review.console.world import HOSTILE, World, judge
from tests.serving.tiny_bundle import make_bundle, publish

_SEEDS = itertools.count(100)


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    """Four models over the same items."""
    folder = tmp_path_factory.mktemp("bundles")
    return [make_bundle(folder / str(seed), seed=seed) for seed in range(4)]


@pytest.fixture(scope="module")
def world(bundles: list[Bundle], tmp_path_factory: pytest.TempPathFactory) -> World:
    """A former champion, a champion, a rejected candidate and one that waits."""
    folder = tmp_path_factory.mktemp("world")
    former, champion, waiting, rejected = bundles
    repository = folder / "workspace" / "repository"
    publish(repository, former)
    publish(repository, champion)
    models = ModelRegistry(repository)
    judge(models, folder / "rejected", rejected, "rejected", why=HOSTILE)
    pending = judge(models, folder / "waiting", waiting)
    for bundle in bundles:  # the features that they read are online
        store = folder / "workspace" / "online" / bundle.manifest.features.service / "feature_store.yaml"
        store.parent.mkdir(parents=True, exist_ok=True)
        store.write_text("project: tiny\n")
    return World(
        workspace=folder / "workspace", models=models, former=former.model_id, champion=champion.model_id,
        waiting=waiting.model_id, rejected=rejected.model_id, verdict=pending.digests["verdict"],
    )  # fmt: skip


@pytest.fixture(scope="module")
def console(world: World) -> Iterator[RunningConsole]:
    """A console without sign-in, whose user is the operator."""
    with running_console(world.workspace) as running:
        yield running


ROLES = """
contact = "the search team"
[users]
"ada" = "operator"
"rob" = "reviewer"
"vera" = "viewer"
[groups]
"ml-reviewers" = "reviewer"
"""


@pytest.fixture(scope="module")
def roles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A roles file with a user of each role, and a group."""
    path = tmp_path_factory.mktemp("roles") / "roles.toml"
    path.write_text(ROLES)
    return path


@pytest.fixture(scope="module")
def behind_proxy(world: World, roles: Path) -> Iterator[RunningConsole]:
    """A console whose users a proxy at 127.0.0.1 names."""
    options = ("--auth", "proxy", "--trusted-proxy", "127.0.0.1", "--roles", roles)
    with running_console(world.workspace, *options, "--user-prefix", "idp:") as running:
        yield running


@pytest.fixture
def candidate(world: World, tmp_path: Path) -> Callable[..., Event]:
    """Registers a model that nobody has seen, and records that it waits; the event."""

    def add(outcome: str = "pending", **more: Any) -> Event:
        bundle = make_bundle(tmp_path / f"bundle-{outcome}", seed=next(_SEEDS))
        return judge(world.models, tmp_path / "evidence", bundle, outcome, **more)

    return add
