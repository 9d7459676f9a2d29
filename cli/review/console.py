"""The console of the review desk, and the tokens of its scripts."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.options import WORKSPACE, AsJson, ReadWorkspace, RepositoryUrl
from cli.review.decisions import StoresOf, open_desk

TOKENS = "review/tokens.json"  # in the workspace
Tokens = Annotated[
    Path | None, typer.Option("--tokens", help="Token file. Default: review/tokens.json in the workspace.")
]


def serve(
    workspace: ReadWorkspace = WORKSPACE,
    repository: RepositoryUrl = "",
    recipe: StoresOf = "",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8010,
    url: Annotated[str, typer.Option(help="Address at which people open it, if that is another one.")] = "",
    auth: Annotated[
        Literal["none", "proxy", "oidc"], typer.Option(help="How people sign in; none is for this machine alone.")
    ] = "none",
    roles: Annotated[Path | None, typer.Option(help="TOML file with [users] and [groups]: name = role.")] = None,
    tokens: Tokens = None,
    server: Annotated[list[str], typer.Option(help="URL of a running server to watch; repeat it for each.")] = [],  # noqa: B006
    trusted_proxy: Annotated[
        list[str], typer.Option(help="proxy: address or network that may say who the user is; repeat it for each.")
    ] = [],  # noqa: B006
    user_header: Annotated[str, typer.Option(help="proxy: header with the user.")] = "kubeflow-userid",
    groups_header: Annotated[
        str, typer.Option(help="proxy: header with the groups, separated by commas.")
    ] = "kubeflow-groups",
    user_prefix: Annotated[str, typer.Option(help="proxy: what to leave out in front of the user's name.")] = "",
    issuer: Annotated[str, typer.Option(help="oidc: URL of the issuer.")] = "",
    client_id: Annotated[str, typer.Option(help="oidc: the console's client id at the issuer.")] = "",
    secret_variable: Annotated[
        str, typer.Option(help="oidc: environment variable with the client secret.")
    ] = "RANKLINE_OIDC_SECRET",
    user_claim: Annotated[str, typer.Option(help="oidc: claim that names the user.")] = "email",
    groups_claim: Annotated[str, typer.Option(help="oidc: claim with the groups.")] = "groups",
    scope: Annotated[str, typer.Option(help="oidc: scopes to ask for.")] = "openid email profile",
    unverified_email: Annotated[
        bool, typer.Option("--unverified-email", help="oidc: accept addresses of an issuer without email_verified.")
    ] = False,
    session_hours: Annotated[float, typer.Option(min=0.01, max=168, help="oidc: hours that a session lasts.")] = 8.0,
    ready_file: Annotated[
        Path | None, typer.Option(help="Write {url, pid} to this file once requests are answered.")
    ] = None,
) -> None:
    """Serve the review desk as web pages: queue, evidence, approve, reject, timeline, what serves, roll back.

    Without sign-in it is for this machine alone, and you are its operator. Others sign in with OpenID Connect or by a
    proxy (Kubeflow's), and --roles says who is viewer, reviewer and operator. Scripts send a token of `rankline review
    token`.

    Example: rankline review serve --server http://127.0.0.1:8000, then open http://127.0.0.1:8010
    """
    from review.console.server import serve as serve_console
    from review.console.settings import ConsoleSettings, OidcSettings, ProxySettings, networks

    background = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mirror")  # a shutdown waits for it
    desk = open_desk(workspace, repository, recipe, later=background.submit)
    serve_console(
        desk,
        ConsoleSettings(
            host=host, port=port, url=url, auth=auth, roles=roles, tokens=tokens or desk.workspace / TOKENS,
            servers=tuple(server), session_hours=session_hours, session_key=os.environ.get("RANKLINE_REVIEW_KEY", ""),
            ready_file=ready_file,
            proxy=ProxySettings(
                user_header=user_header, groups_header=groups_header, user_prefix=user_prefix,
                trusted=networks(tuple(trusted_proxy)),
            ),
            oidc=OidcSettings(
                issuer=issuer, client_id=client_id, client_secret=os.environ.get(secret_variable, ""),
                user_claim=user_claim, groups_claim=groups_claim, scope=scope,
                unverified_email=unverified_email,
            ),
        ),
    )  # fmt: skip


def token(
    name: Annotated[str, typer.Argument(help="What the script is called: events name it as token:NAME.")],
    role: Annotated[Literal["viewer", "reviewer", "operator"], typer.Option(help="What it may do.")] = "viewer",
    revoke: Annotated[bool, typer.Option("--revoke", help="End the token instead of creating it.")] = False,
    workspace: ReadWorkspace = WORKSPACE,
    tokens: Tokens = None,
    as_json: AsJson = False,
) -> None:
    """Create a token for a script, and print it once: the file has only its sha256.

    Running consoles know it at once. Send it as Authorization: Bearer, with Accept: application/json for JSON.

    Example: rankline review token nightly-report --role viewer
    """
    from cli.options import require_workspace
    from review.console.signin.tokens import add_token, revoke_token

    file = tokens or require_workspace(workspace) / TOKENS
    if revoke:
        revoke_token(file, name)
        typer.echo(json.dumps({"revoked": name}) if as_json else f"token {name} is revoked")
        return
    secret = add_token(file, name, role)
    typer.echo(json.dumps({"name": name, "role": role, "token": secret}) if as_json else secret)
