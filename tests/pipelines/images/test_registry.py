"""Whether a registry has an image: asked without credentials, with docker's, and where it cannot be known."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.images.registry import ManifestUnknown, RegistryNotKnown, docker_credentials, parts, require_manifest
from tests.servers.process import free_port
from tests.servers.registry import PASSWORD, USER, Registry, image_registry

PIN = "@sha256:" + "a" * 64


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with image_registry() as server:
        yield server


def ask(image: str) -> None:
    """Ask for an image as docker does here."""
    require_manifest(image, docker_credentials(image))


def sign_in(folder: Path, registry: Registry, password: str = PASSWORD) -> None:
    auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {registry.address: {"auth": auth}}}))


def test_a_registry_that_has_the_image_and_one_that_does_not(registry: Registry) -> None:
    ask(registry.put("team/data"))
    with pytest.raises(ManifestUnknown):
        ask(f"{registry.address}/team/train{PIN}")


@pytest.mark.parametrize("challenge", ["Bearer", "Basic"])
def test_credentials_of_docker_are_used(registry: Registry, tmp_path: Path, challenge: str) -> None:
    image, registry.challenge = registry.put("team/data"), challenge
    with pytest.raises(RegistryNotKnown, match="credentials"):
        ask(image)
    sign_in(tmp_path, registry, password="wrong")
    with pytest.raises(RegistryNotKnown, match="credentials"):
        ask(image)
    sign_in(tmp_path, registry)
    ask(image)


def test_a_token_for_nobody(registry: Registry) -> None:
    image, registry.challenge, registry.anonymous_token = registry.put("team/data"), "Bearer", True
    ask(image)


def test_a_credential_helper_is_asked(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, registry.challenge = registry.put("team/data"), "Bearer"
    (tmp_path / "config.json").write_text(json.dumps({"credHelpers": {registry.address: "test"}}))
    with pytest.raises(RegistryNotKnown, match="credentials"):  # docker-credential-test is not installed
        ask(image)
    helper = tmp_path / "docker-credential-test"
    helper.write_text(f"#!/bin/sh\necho '{json.dumps({'Username': USER, 'Secret': PASSWORD})}'\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    ask(image)


def test_a_registry_that_cannot_be_asked(registry: Registry) -> None:
    with pytest.raises(RegistryNotKnown, match="does not answer here"):
        ask(f"127.0.0.1:{free_port()}/team/data{PIN}")
    registry.status = 503
    with pytest.raises(RegistryNotKnown, match="HTTP 503"):
        ask(registry.put("team/data"))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("python", ("docker.io", "library/python")),
        ("acme/data", ("docker.io", "acme/data")),
        ("ghcr.io/acme/data:1.0", ("ghcr.io", "acme/data")),
        ("localhost/data", ("localhost", "data")),
        ("registry:5000/a/b/c", ("registry:5000", "a/b/c")),
    ],
)
def test_the_registry_of_an_image(image: str, expected: tuple[str, str]) -> None:
    assert parts(image + PIN) == (*expected, PIN[1:])
