"""Build the images that the steps and the server run in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.options import AsJson

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipelines.images.build import BuiltImage


def build(
    what: Annotated[
        Literal["data", "train", "serve", "evaluate", "all"], typer.Argument(metavar="IMAGE", help="One image, or all.")
    ] = "all",
    base: Annotated[
        str,
        typer.Option(
            envvar="RANKLINE_BASE", help="Base image with Python 3.11 to 3.13; pin it: python:3.11-slim@sha256:…"
        ),
    ] = "",
    variant: Annotated[
        Literal["cpu", "cuda"], typer.Option(help="cuda adds NVIDIA's libraries (not tested on a GPU).")
    ] = "cpu",
    name: Annotated[
        str, typer.Option(help="Name before /data, /train…; for --push the path in a registry.")
    ] = "rankline",
    tag: Annotated[str, typer.Option(help="Tag of the images; CUDA images get the suffix -cuda.")] = "0.1.0",
    sbom: Annotated[Path, typer.Option(help="Folder for the bills of materials (CycloneDX) and the logs.")] = Path(
        "build/images"
    ),
    push: Annotated[
        bool, typer.Option("--push", help="Push the images, and print the settings that pin them.")
    ] = False,
    release: Annotated[
        bool, typer.Option("--release", help="Refuse a base image that is not pinned, and uncommitted files.")
    ] = False,
    network: Annotated[str, typer.Option(help="Network of the build, such as host.")] = "",
    torch_wheels: Annotated[
        str,
        typer.Option(help="URL of a folder with the variant's build of torch, if pip's index does not have it."),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Build the images (data, train, serve, evaluate) from deploy/Dockerfile, with a bill of materials for each.

    This needs Docker Engine 20.10 or newer, network access for packages, and about 15 GB of disk. Afterwards
    `rankline run --runner docker` runs its steps in these images; pushed images can be passed to `rankline compile`.

    Examples:

      rankline build serve --base python:3.11-slim

      rankline build all --base python:3.11-slim@sha256:… --release --push --name NAME
    """
    from pipelines.images import build as images
    from pipelines.images.docker import find_docker
    from pipelines.images.torch_build import require_cpu_torch

    def say(line: str) -> None:
        typer.echo(line, err=as_json)

    images.require_base(base, release=release)
    source_root = images.require_source(release=release)
    tool = find_docker()
    if not tool.buildkit:
        say("this docker command has no BuildKit: downloads are not cached between builds")
    resolved, base_id = _resolve_base(base, tool, say)
    options = images.BuildOptions(
        base=resolved, base_id=base_id, variant=variant, name=name, tag=tag, network=network,
        torch_wheels=torch_wheels, logs=sbom,
    )  # fmt: skip
    kinds = images.KINDS if what == "all" else (what,)
    if "train" in kinds and variant == "cpu":
        require_cpu_torch(options, tool=tool, say=say, source_root=source_root)
    built = [_build_one(kind, options, tool, say, push=push) for kind in kinds]
    if as_json:
        typer.echo(json.dumps([_image_payload(each) for each in built], indent=2))
    else:
        typer.echo("\n" + "\n".join([*_table_lines(built), *_pinned_settings(built)]))


def _resolve_base(base: str, tool: Any, say: Callable[[str], None]) -> tuple[str, str]:
    """(reference, image id) of the base image, pinned by digest if it came from a registry."""
    from pipelines.images import build as images

    resolved, base_id = images.resolve_base(base, tool=tool)
    if not images.PINNED_IMAGE.search(resolved):
        say(f"the base image {base} has no digest, as it is not from a registry; on this machine it is {base_id}")
    elif resolved != base:
        say(f"the base image {base} is now --base {resolved}")
    return resolved, base_id


def _build_one(kind: Any, options: Any, tool: Any, say: Callable[[str], None], *, push: bool) -> BuiltImage:
    """Build an image, write its bill of materials, and push it if asked to."""
    from cli.formats import format_duration
    from pipelines.images import build as images
    from pipelines.images import sbom

    say(f"▶ {options.reference(kind)}")
    built = images.build(kind, options, tool=tool, say=say)
    path = sbom.write_sbom(built, options.logs)
    if push:
        images.push(built, tool=tool, say=say, log=options.logs / f"push-{kind}.log")
    say(f"✔ {kind:<9} {format_duration(built.seconds):>7}  {path}")
    return built


def _image_payload(built: BuiltImage) -> dict[str, Any]:
    return {
        "image": built.reference,
        "id": built.image_id,
        "pushed": built.pushed,
        "size_bytes": built.size_bytes,
        "python_packages": len(built.inventory.python),
        "debian_packages": len(built.inventory.debian),
        "seconds": round(built.seconds, 1),
    }


def _table_lines(built: list[BuiltImage]) -> list[str]:
    from cli.formats import aligned_lines, format_duration

    rows = [("image", "id", "size", "Python", "Debian", "built in")]
    for each in built:
        image_id, size = each.image_id.removeprefix("sha256:")[:12], f"{each.size_bytes / 1e6:.0f} MB"
        packages = str(len(each.inventory.python)), str(len(each.inventory.debian))
        rows.append((each.reference, image_id, size, *packages, format_duration(each.seconds)))
    return aligned_lines(rows, right=[2, 3, 4, 5])


def _pinned_settings(built: list[BuiltImage]) -> list[str]:
    """The settings that pin what was pushed; only a registry gives an image a digest."""
    from pipelines.images.build import PIPELINE_IMAGES

    pushed = {each.kind: each.pushed for each in built if each.pushed}
    if not pushed:
        return ["not pushed: `rankline compile` needs a digest, which a registry assigns (--push, --name registry/…)"]
    settings = [f"  --set cluster.images.{kind}={pushed[kind]}" for kind in PIPELINE_IMAGES if kind in pushed]
    return [
        *(["for `rankline submit` and `rankline compile`:", *settings] if settings else []),
        *(["for the server's Deployment:", f"  image: {pushed['serve']}"] if "serve" in pushed else []),
    ]
