"""Start the server, and ask it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cli.options import WORKSPACE, AsJson, RepositoryUrl, Url, Workspace

HELP = """Serve the champion of the workspace over HTTP, swapping to a new one without dropping a request.

Example: rankline serve --port 8000, then rankline ask 196"""
ASK_HELP = """Ask a running server: for a user's recommendations, for what answers a query, or for both at once.

Examples: rankline ask 196; rankline ask --query "how long does a permit take?"; rankline ask c017 -q kettle"""


def serve(
    workspace: Workspace = WORKSPACE,
    bundle: Annotated[Path | None, typer.Option(help="Serve this bundle's folder instead of the champion.")] = None,
    repository: RepositoryUrl = "",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8000,
    precision: Annotated[
        Literal["fp32", "int8", "fp16"], typer.Option(help="int8 is for the CPU, fp16 for a GPU.")
    ] = "fp32",
    provider: Annotated[Literal["cpu", "cuda"], typer.Option(help="cuda refuses to start without a GPU.")] = "cpu",
    threads: Annotated[int, typer.Option(help="Threads of one ONNX Runtime session.", min=1)] = 1,
) -> None:
    """See HELP."""
    from serving.server import main

    raise typer.Exit(
        main(
            server_arguments(
                workspace, bundle=bundle, repository=repository, host=host, port=port, precision=precision,
                provider=provider, threads=threads,
            )
        )
    )  # fmt: skip


def server_arguments(workspace: Path, *, bundle: Path | None = None, repository: str = "", **options: Any) -> list[str]:
    """The server's own arguments for a workspace: its repository, and its online features, be they there yet or not."""
    from rankline.features.transforms import SERVICE

    model_source = (
        ["--bundle", str(bundle)] if bundle else ["--repository", repository or str(workspace / "repository")]
    )
    return [
        *model_source,
        *("--features", str(workspace / "online" / SERVICE)),
        *(part for name, value in options.items() for part in (f"--{name}", str(value))),
    ]


def ask(
    user: Annotated[str | None, typer.Argument(help="User id; may be left out beside --query.")] = None,
    query: Annotated[str | None, typer.Option("--query", "-q", help="What is searched for, in words.")] = None,
    candidates: Annotated[
        list[str],
        typer.Option("--candidate", "-c", help="Rank these items (or labels) alone; give it once for each."),
    ] = [],  # noqa: B006
    k: Annotated[int, typer.Option("--k", "-k", help="How many items.", min=1)] = 10,
    url: Url = "http://127.0.0.1:8000",
    as_json: AsJson = False,
) -> None:
    """See ASK_HELP."""
    import json

    if user is None and query is None:
        raise typer.BadParameter("ask for a user, with --query, or both", param_hint="USER")
    answer = ask_server(url, user=user, query=query, candidates=candidates, k=k)
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
        return
    typer.echo("\n".join(answer_lines(answer)))


def ask_server(
    url: str, *, user: str | None = None, query: str | None = None, candidates: Sequence[str] = (), k: int
) -> dict[str, Any]:
    """What the server at ``url`` says to a user, to a query, or to both.

    Raises:
        ServerError: nobody answers there, or the answer is a refusal.
    """
    import httpx

    from rankline.errors import ServerError

    route = "rank" if candidates else "search" if query is not None else "recommend"
    body: dict[str, Any] = {"user_id": user, "k": k}
    if query is not None:
        body["query"] = query
    if candidates:
        body["candidates"] = list(candidates)
    try:
        is_local = httpx.URL(url).host in ("127.0.0.1", "localhost", "::1")  # then no proxy stands between
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
            answer.get("error", "the server refused"),
            expected=answer.get("expected") or "",
            found=answer.get("found") or f"status {response.status_code}",
            where=url,
            hint=answer.get("hint") or "",
        )
    return answer


def answer_lines(answer: dict[str, Any]) -> list[str]:
    """An answer as people read it."""
    has_probability = any(item.get("probability") is not None for item in answer["items"])
    lines = [f"{'':>4}{'score':>8}  {'chance  ' if has_probability else ''}title"]
    for rank, item in enumerate(answer["items"], 1):
        found_by = "+".join(item.get("sources", []))
        probability_text = f"{item['probability']:>6.1%}  " if has_probability else ""
        shown = f"{probability_text}{item['title'] or item['item_id']}" + (f"   ({found_by})" if found_by else "")
        lines.append(f"{rank:>3}.{item['score']:>8.3f}  {shown}")
    if answer.get("abstained"):
        lines.append("it abstains: none of these is likely enough to be the answer")
    lines.append(f"answered by model {answer['model_id']}")
    if answer.get("hidden"):
        lines.append(f"taken down, so not ranked: {', '.join(answer['hidden'])}")
    if answer.get("withdrawn"):
        lines.append(f"not available, so not ranked: {', '.join(answer['withdrawn'])}")
    if answer.get("degraded"):
        lines.append(f"degraded: {', '.join(answer['degraded'])} (defaults were used)")
    return lines
