"""The images of the steps: pinned, and known to their registry."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.findings import Finding
from pipelines.images.registry import ManifestUnknown, RegistryNotKnown, require_manifest
from pipelines.kubeflow.conformance import PINNED_IMAGE
from pipelines.recipe import Recipe


def images(recipe: Recipe) -> Iterator[Finding]:
    """Each image is pinned by a digest that its registry has."""
    for name, image in recipe.cluster.images.model_dump().items():
        check = f"image {name}"
        if not PINNED_IMAGE.match(image):
            hint = f"--set cluster.images.{name}=registry/name@sha256:…, which `rankline build --push` prints"
            yield Finding(check, "fail", f"not pinned by a digest: {image or 'no image'}", hint)
            continue
        try:
            require_manifest(image)
            yield Finding(check, "ok", f"the registry has {image[:60]}…")
        except ManifestUnknown:
            hint = "`rankline build --push` prints the digests that it pushed"
            yield Finding(check, "fail", f"the registry has no {image}", hint)
        except RegistryNotKnown as error:
            hint = "the nodes may reach it although this machine does not: `docker login` here, or submit and see"
            yield Finding(check, "warn", f"not known: {error}", hint)
