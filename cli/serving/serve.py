"""Start the server, and send requests to it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cli.bucket_copy import bucket_of
from cli.options import WORKSPACE, AsJson, ReadWorkspace, RepositoryUrl, Url

LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")


def serve(
    workspace: ReadWorkspace = WORKSPACE,
    bundle: Annotated[
        Path | None, typer.Option(help="Serve the bundle in this folder instead of the champion.")
    ] = None,
    repository: RepositoryUrl = "",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8000,
    precision: Annotated[
        Literal["fp32", "int8", "fp16"], typer.Option(help="int8 is for the CPU, fp16 for a GPU.")
    ] = "fp32",
    provider: Annotated[Literal["cpu", "cuda"], typer.Option(help="cuda refuses to start without a GPU.")] = "cpu",
    threads: Annotated[int, typer.Option(help="Threads of one ONNX Runtime session.", min=1)] = 1,
    max_pending: Annotated[
        int, typer.Option(help="Requests that are answered or wait at once; more get 429 at once.", min=1)
    ] = 128,
    max_body_mb: Annotated[
        float, typer.Option(help="Largest body of a request in MiB; a larger one gets 413.", min=0.001)
    ] = 8.0,
    workers: Annotated[int, typer.Option(help="Batches in progress at once; about as many as processors.", min=1)] = 2,
    max_batch: Annotated[
        int, typer.Option(help="Requests that are answered together; 1 answers each alone.", min=1)
    ] = 32,
    batch_wait_ms: Annotated[
        float, typer.Option(help="Longest wait for a batch as large as the last one; none on an idle server.", min=0)
    ] = 1.0,
    timeout_s: Annotated[
        float,
        typer.Option(help="Longest time of a request; then it gets 503. X-Request-Timeout-Ms may be less.", min=0.001),
    ] = 10.0,
) -> None:
    """Serve the workspace's champion over HTTP, swapping to a new one without dropping a request.

    Example: rankline serve --port 8000, then rankline ask 196
    """
    from serving.server import main

    arguments = server_arguments(
        workspace, bundle=bundle, repository=repository, host=host, port=port, precision=precision, provider=provider,
        threads=threads, workers=workers,
        **{
            "max-pending": max_pending, "max-body-mb": max_body_mb, "max-batch": max_batch,
            "batch-wait-ms": batch_wait_ms, "timeout-s": timeout_s,
        },
    )  # fmt: skip
    raise typer.Exit(main(arguments))


def server_arguments(workspace: Path, *, bundle: Path | None = None, repository: str = "", **options: Any) -> list[str]:
    """The server's own arguments for a workspace: its model registry and its online features."""
    from rankline.features.transforms import SERVICE

    bucket = bucket_of(workspace)
    root = bucket.url if bucket else str(workspace)
    source = ["--bundle", str(bundle)] if bundle else ["--repository", repository or f"{root}/repository"]
    features = ["--features", f"{root}/online/{SERVICE}"]
    return [*source, *features, *(part for name, value in options.items() for part in (f"--{name}", str(value)))]


def ask(
    user: Annotated[str | None, typer.Argument(help="User id; optional with --query.")] = None,
    query: Annotated[str | None, typer.Option("--query", "-q", help="Search query.")] = None,
    candidates: Annotated[
        list[str],
        typer.Option("--candidate", "-c", help="Rank only these items (or labels); repeat the option for each."),
    ] = [],  # noqa: B006
    context: Annotated[
        list[str],
        typer.Option("--context", help="NAME=VALUE of a declared field of the request; repeat the option for each."),
    ] = [],  # noqa: B006
    k: Annotated[int, typer.Option("--k", "-k", help="Number of items.", min=1)] = 10,
    url: Url = "http://127.0.0.1:8000",
    as_json: AsJson = False,
) -> None:
    """Ask a running server for recommendations to a user, for results of a query, or for both together.

    Examples: rankline ask 196; rankline ask --query "how long does a permit take?"; rankline ask c017 -q kettle

    With what is known of the request: rankline ask c017 --context device=phone
    """
    if user is None and query is None:
        raise typer.BadParameter("give a user, --query, or both", param_hint="USER")
    answer = ask_server(url, user=user, query=query, candidates=candidates, context=parse_context(context), k=k)
    typer.echo(json.dumps(answer, indent=2) if as_json else "\n".join(answer_lines(answer)))


def parse_context(options: Sequence[str]) -> dict[str, Any]:
    """The fields of a request from NAME=VALUE; a value that reads as a JSON number or boolean is one."""
    context: dict[str, Any] = {}
    for option in options:
        name, equals, text = option.partition("=")
        if not (name and equals):
            raise typer.BadParameter(f"{option!r} is not NAME=VALUE, such as device=phone", param_hint="--context")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        context[name] = value if isinstance(value, int | float | None) else text
    return context


def ask_server(
    url: str,
    *,
    user: str | None = None,
    query: str | None = None,
    candidates: Sequence[str] = (),
    context: Mapping[str, Any] | None = None,
    k: int,
) -> dict[str, Any]:
    """The server's answer to a user, to a query, or to both, in a context.

    Raises:
        ServerError: no Rankline server answers there, or it answers with an error.
    """
    import httpx

    from rankline.errors import ServerError

    route = "rank" if candidates else "search" if query is not None else "recommend"
    body: dict[str, Any] = {"user_id": user, "k": k}
    if query is not None:
        body["query"] = query
    if candidates:
        body["candidates"] = list(candidates)
    if context:
        body["context"] = dict(context)
    try:
        is_local = httpx.URL(url).host in LOCAL_HOSTS  # a proxy cannot reach these
        response = httpx.post(f"{url}/v1/{route}", json=body, timeout=30, trust_env=not is_local)
        answer: dict[str, Any] = response.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise ServerError(
            "the server does not answer",
            expected="a Rankline server",
            found=str(error),
            where=url,
            hint="start one with `rankline serve`, or give its address with --url",
        ) from error
    if response.status_code != 200:
        raise ServerError(
            answer.get("error", "the server refused the request"),
            expected=answer.get("expected") or "",
            found=answer.get("found") or f"status {response.status_code}",
            where=url,
            hint=answer.get("hint") or "",
        )
    return answer


def answer_lines(answer: dict[str, Any]) -> list[str]:
    """The lines that show an answer."""
    has_probability = any(item.get("probability") is not None for item in answer["items"])
    lines = [f"{'':>4}{'score':>8}  {'chance  ' if has_probability else ''}title"]
    for rank, item in enumerate(answer["items"], 1):
        sources = "+".join(item.get("sources", []))
        probability = f"{item['probability']:>6.1%}  " if has_probability else ""
        title = item["title"] or item["item_id"]
        lines.append(f"{rank:>3}.{item['score']:>8.3f}  {probability}{title}" + (f"   ({sources})" if sources else ""))
    if answer.get("abstained"):
        lines.append("it abstains: none of these is likely enough to be the answer")
    lines.append(f"answered by model {answer['model_id']}")
    if answer.get("hidden"):
        lines.append(f"hidden, so not ranked: {', '.join(answer['hidden'])}")
    if answer.get("withdrawn"):
        lines.append(f"not available, so not ranked: {', '.join(answer['withdrawn'])}")
    if answer.get("degraded"):
        lines.append(f"degraded: {', '.join(answer['degraded'])} (defaults were used)")
    return lines
