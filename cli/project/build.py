"""Build the images that the steps and the server run in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.options import AsJson

if TYPE_CHECKING:
    from pipelines.images.build import BuiltImage

HELP = """Build the images (data, train, serve, evaluate) from deploy/Dockerfile and write their bills of materials.

Needs Docker Engine 20.10 or newer, the network for packages, and about 15 GB of disk. Afterwards
`rankline run --runner docker` runs the whole line in them; pushed ones can be named to `rankline compile`.

Examples:

  rankline build serve --base python:3.11-slim

  rankline build all --base python:3.11-slim@sha256:… --release --push --name NAME"""


def build(
    what: Annotated[
        Literal["data", "train", "serve", "evaluate", "all"], typer.Argument(help="One image, or all.")
    ] = "all",
    base: Annotated[
        str,
        typer.Option(
            envvar="RANKLINE_BASE", help="Image with Python 3.11 to stand on; pin it: python:3.11-slim@sha256:…"
        ),
    ] = "",
    variant: Annotated[
        Literal["cpu", "cuda"], typer.Option(help="cuda adds NVIDIA's libraries (not tried on a GPU).")
    ] = "cpu",
    name: Annotated[
        str, typer.Option(help="What stands before /data, /train…; for --push a registry's path.")
    ] = "rankline",
    tag: Annotated[str, typer.Option(help="Tag of the images; -cuda is added to the CUDA ones.")] = "0.1.0",
    sbom: Annotated[Path, typer.Option(help="Folder of the bills of materials (CycloneDX) and the logs.")] = Path(
        "build/images"
    ),
    push: Annotated[bool, typer.Option("--push", help="Push them; print the lines that pin them.")] = False,
    release: Annotated[
        bool, typer.Option("--release", help="Refuse a base that is not pinned, and files that are not committed.")
    ] = False,
    network: Annotated[str, typer.Option(help="Network of the build, such as host.")] = "",
    torch_wheels: Annotated[
        str,
        typer.Option(help="Folder (URL) with the variant's build of torch, if pip's index lacks it."),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """See HELP."""
    from cli.runs.progress import format_duration
    from pipelines.images import build as images
    from pipelines.images import sbom as bill

    images.require_base(base, release=release)
    images.require_source(release=release)
    tool = images.find_docker()
    say: Any = lambda line: typer.echo(line, err=as_json)  # noqa: E731
    if not tool.buildkit:
        say("this docker command has no BuildKit: downloads are not kept between builds")
    resolved, base_id = images.resolve_base(base, tool=tool)
    if not images.PINNED_IMAGE.search(resolved):
        say(f"the base {base} came from no registry and has no digest; on this machine it is {base_id}")
    elif resolved != base:
        say(f"the base {base} stands for --base {resolved} now")
    order = images.BuildOptions(
        base=resolved,
        base_id=base_id,
        variant=variant,
        name=name,
        tag=tag,
        network=network,
        torch_wheels=torch_wheels,
        logs=sbom,
    )
    built_images = []
    for kind in images.KINDS if what == "all" else (what,):
        say(f"▶ {order.reference(kind)}")
        built = images.build(kind, order, tool=tool, say=say)
        path = bill.write_sbom(built, sbom)
        if push:
            images.push(built, tool=tool, say=say, log=sbom / f"push-{kind}.log")
        say(f"✔ {kind:<9} {format_duration(built.seconds):>7}  {path}")
        built_images.append(built)
    if as_json:
        import json

        typer.echo(json.dumps([image_payload(each) for each in built_images], indent=2))
    else:
        typer.echo("\n" + "\n".join(table_lines(built_images)))
        typer.echo("\n".join(pinned_settings(built_images)))


def image_payload(built: BuiltImage) -> dict[str, Any]:
    """An image, for programs."""
    return {
        "image": built.reference,
        "id": built.image_id,
        "pushed": built.pushed,
        "size_bytes": built.size_bytes,
        "python_packages": len(built.inventory.python),
        "debian_packages": len(built.inventory.debian),
        "seconds": round(built.seconds, 1),
    }


def table_lines(built_images: list[BuiltImage]) -> list[str]:
    """The images as a table."""
    from cli.runs.progress import format_duration

    width = max(len(each.reference) for each in built_images)
    rows = [f"{'image':<{width}}  {'id':<12} {'size':>8} {'Python':>7} {'Debian':>7} {'built in':>8}"]
    for each in built_images:
        rows.append(
            f"{each.reference:<{width}}  {each.image_id.removeprefix('sha256:')[:12]} {each.size_bytes / 1e6:>5.0f} MB"
            f" {len(each.inventory.python):>7} {len(each.inventory.debian):>7} {format_duration(each.seconds):>8}"
        )
    return rows


def pinned_settings(built_images: list[BuiltImage]) -> list[str]:
    """The settings that pin what was pushed; a digest to pull by exists only in a registry."""
    from pipelines.images.build import PIPELINE_IMAGES

    pushed = [each for each in built_images if each.pushed]
    if not pushed:
        return ["not pushed: a digest for `rankline compile` exists only in a registry (--push, --name registry/…)"]
    return ["for `rankline compile`:"] + [
        f"  --set cluster.images.{each.kind}={each.pushed}" for each in pushed if each.kind in PIPELINE_IMAGES
    ]
