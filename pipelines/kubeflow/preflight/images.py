"""The images of the steps: pinned, known to their registry, and open to the nodes that pull them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pipelines.findings import Finding
from pipelines.images.registry import (
    Credentials,
    ManifestUnknown,
    RegistryNotKnown,
    WantsCredentials,
    docker_credentials,
    parts,
    require_manifest,
)
from pipelines.kubeflow.conformance import PINNED_IMAGE
from pipelines.recipe import Recipe


def images(recipe: Recipe, *, account: str, pull: Mapping[str, Credentials] | None) -> Iterator[Finding]:
    """Each image is pinned by a digest that its registry has, for the nodes, too.

    Args:
        account: the service account of the pods.
        pull: registry -> credentials of its pull secrets; None where they are not known.
    """
    for name, image in recipe.cluster.images.model_dump().items():
        check = f"image {name}"
        if not PINNED_IMAGE.match(image):
            hint = f"--set cluster.images.{name}=registry/name@sha256:…, which `rankline build --push` prints"
            yield Finding(check, "fail", f"not pinned by a digest: {image or 'no image'}", hint)
            continue
        try:
            yield _pulled(check, image, account, pull)
        except ManifestUnknown:
            hint = "`rankline build --push` prints the digests that it pushed"
            yield Finding(check, "fail", f"the registry has no {image}", hint)
        except RegistryNotKnown as error:
            hint = "the nodes may reach it although this machine does not: `docker login` here, or submit and see"
            yield Finding(check, "warn", f"not known: {error}", hint)


def _pulled(check: str, image: str, account: str, pull: Mapping[str, Credentials] | None) -> Finding:
    """The registry has the image; where it wants credentials, a pull secret of the pods' account has them."""
    registry = parts(image)[0]
    own = (pull or {}).get(registry)
    try:
        require_manifest(image, own)
    except WantsCredentials:
        require_manifest(image, docker_credentials(image))
        if pull is not None:
            message = f"{registry} has it, and wants credentials that no pull secret of service account {account} has"
            hint = f"kubectl create secret docker-registry, and name it in imagePullSecrets of {account}; nodes may "
            return Finding(check, "warn", message, hint + "have credentials of their own")
        own = None
    secret = f" for the pull secret of service account {account}" if own else ""
    return Finding(check, "ok", f"the registry has {image[:60]}…{secret}")
