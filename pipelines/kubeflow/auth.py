"""The ways to sign in to Kubeflow: a token, a cookie, dex with a password, or a forwarded port.

Secrets come from the environment or from files, never from the command line, which every user of a machine can see.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import threading
import urllib.parse
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.kubeflow.errors import unreachable_error
from rankline.errors import AccessError, UsageError

if TYPE_CHECKING:
    import requests

TOKEN, TOKEN_FILE = "RANKLINE_KFP_TOKEN", "RANKLINE_KFP_TOKEN_FILE"
COOKIE = "RANKLINE_KFP_COOKIE"
USER, PASSWORD = "RANKLINE_KFP_USER", "RANKLINE_KFP_PASSWORD"
PROJECTED = Path("/var/run/secrets/kubeflow/pipelines/token")  # mounted by Kubeflow's PodDefault
_TIMEOUT_S = 20.0


def token_file() -> Path | None:
    """The file with a service account's token, or None where the environment holds the token itself.

    Raises:
        UsageError: there is neither.
    """
    if os.environ.get(TOKEN):
        return None
    named = os.environ.get(TOKEN_FILE) or os.environ.get("KF_PIPELINES_SA_TOKEN_PATH")
    path = Path(named) if named else PROJECTED
    if not path.is_file():
        raise UsageError(
            "there is no service account token",
            expected=f"a token in {TOKEN}, or the file that holds it in {TOKEN_FILE}",
            found=f"neither, and no {path}",
            hint="kubectl -n NAMESPACE create token ACCOUNT --audience pipelines.kubeflow.org",
        )
    return path


def token() -> str:
    """The current token; a projected one is renewed before it expires.

    Raises:
        UsageError: there is none, or the file is empty.
    """
    path = token_file()
    text = (os.environ[TOKEN] if path is None else path.read_text()).strip()
    if not text:
        raise UsageError("the service account token is empty", found=str(path or TOKEN))
    return text


def cookie() -> str:
    """The session cookie of the environment, as NAME=VALUE.

    Raises:
        UsageError: there is none, or it has no name.
    """
    text = os.environ.get(COOKIE, "").strip().removeprefix("Cookie:").strip()
    if not re.match(r"^[^=;\s]+=\S", text):
        raise UsageError(
            "the session cookie has no name" if text else "there is no session cookie",
            expected=f"NAME=VALUE in {COOKIE}, such as authservice_session=… or oauth2_proxy_kubeflow=…",
            found="a value alone" if text else "nothing",
            hint="copy it from a browser that is signed in, or use --auth dex",
        )
    return text


class _Form(HTMLParser):
    """The first form of a page: its action, its fields, and the page's links."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.action: str | None = None
        self.fields: dict[str, str] = {}
        self.links: list[str] = []
        self._open = False
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Collect the form, its fields, and links."""
        values = {name: value or "" for name, value in attributes}
        if tag == "form" and self.action is None:
            self.action, self._open = values.get("action", ""), True
        elif tag in ("input", "button") and self._open and values.get("name"):
            self.fields[values["name"]] = values.get("value", "")
        elif tag == "a" and values.get("href"):
            self.links.append(values["href"])

    def handle_endtag(self, tag: str) -> None:
        """Note the end of the form."""
        if tag == "form":
            self._open = False


def dex_cookies(host: str, *, ca: str | None) -> str:
    """Sign in at dex with the user and password of the environment; returns the session's cookies.

    Follows the redirects to dex, chooses the connector for passwords where there are several, fills in the form and
    approves where dex asks for it.

    Raises:
        UsageError: the environment has no user or password, or they are wrong.
        AccessError: the host does not lead to a sign-in page.
    """
    import requests

    user, password = os.environ.get(USER), os.environ.get(PASSWORD)
    if not user or not password:
        missing = " and ".join(name for name, value in ((USER, user), (PASSWORD, password)) if not value)
        raise UsageError("dex needs a user and a password", expected=f"{USER} and {PASSWORD}", found=f"no {missing}")
    with requests.Session() as session:
        session.verify = ca or True
        try:
            page = _sign_in_page(session, host)
            page = _submit(session, page, {"login": user, "password": password})
            if "approval" in _Form(page.text).fields:
                page = _submit(session, page, {"approval": "approve"})
        except requests.exceptions.RequestException as error:
            raise unreachable_error(error, host) from error
        if "password" in _Form(page.text).fields:
            raise UsageError("dex does not accept this password", found=f"user {user}", where=host)
        hostname = urllib.parse.urlsplit(host).hostname or ""
        cookies = [each for each in session.cookies if hostname.endswith(each.domain.lstrip("."))]
    if not cookies:
        raise AccessError("dex started no session", found=f"HTTP {page.status_code}", where=host)
    return "; ".join(f"{each.name}={each.value}" for each in cookies)


def _sign_in_page(session: requests.Session, host: str) -> requests.Response:
    """The page with dex's form for a password."""
    page = session.get(host, timeout=_TIMEOUT_S)
    if page.status_code in (401, 403):  # oauth2-proxy refuses a program where it would redirect a browser
        page = session.get(urllib.parse.urljoin(host, "/oauth2/start"), timeout=_TIMEOUT_S)
    if not page.history:
        raise AccessError(
            "this host does not ask for a sign-in",
            expected="a redirect to dex",
            found=f"HTTP {page.status_code}",
            where=host,
            hint="--auth none, or cookie",
        )
    form = _Form(page.text)
    if "password" not in form.fields and (local := [link for link in form.links if "/auth/local" in link]):
        page = session.get(urllib.parse.urljoin(page.url, local[0]), timeout=_TIMEOUT_S)
        form = _Form(page.text)
    if "password" not in form.fields or form.action is None:
        raise AccessError(
            "the sign-in page of this host has no form for a password",
            expected="dex with its local connector",
            found=f"HTTP {page.status_code}",
            where=page.url.split("?")[0],
            hint=f"sign in with a browser and copy its cookie into {COOKIE} (--auth cookie)",
        )
    return page


def _submit(session: requests.Session, page: requests.Response, values: dict[str, str]) -> requests.Response:
    """The page after the form of ``page`` was sent with these values."""
    form = _Form(page.text)
    target = urllib.parse.urljoin(page.url, form.action or page.url)
    return session.post(target, data={**form.fields, **values}, timeout=_TIMEOUT_S)


_FORWARDING = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")


@contextlib.contextmanager
def forwarded_port(context: str, system: str) -> Iterator[str]:
    """Forward a port to Kubeflow's UI, which passes requests on to the API, while the block runs; yields the URL.

    Where no UI is installed the port is the API's own.

    Raises:
        UsageError: kubectl is not installed.
        AccessError: kubectl ended before it forwarded a port; the error repeats its message.
    """
    if shutil.which("kubectl") is None:
        raise UsageError(
            "kubectl is not installed",
            expected="kubectl on the PATH",
            hint="install it, or use --auth existing with --context",
        )
    kubectl = ["kubectl", *(["--context", context] if context else []), "-n", system]
    kubectl += ["port-forward", "--address", "127.0.0.1"]
    with contextlib.ExitStack() as stack:
        try:
            port = stack.enter_context(_forwarding([*kubectl, "svc/ml-pipeline-ui", ":80"]))
        except AccessError as error:
            if "not found" not in error.found:
                raise
            port = stack.enter_context(_forwarding([*kubectl, "svc/ml-pipeline", ":8888"]))
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def _forwarding(command: list[str]) -> Iterator[str]:
    """The local port of a kubectl that runs as long as the block."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield _read_port(process, command)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()


def _read_port(process: subprocess.Popen[str], command: list[str]) -> str:
    ports: list[str] = []
    ready = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:  # to the end, so that kubectl never waits for a reader
            if match := _FORWARDING.search(line):
                ports.append(match[1])
                ready.set()
        ready.set()

    threading.Thread(target=read, daemon=True).start()
    ready.wait(_TIMEOUT_S)
    if not ports:
        process.terminate()
        assert process.stderr is not None
        last_line = (process.stderr.read().strip().splitlines() or ["nothing"])[-1]
        raise AccessError("kubectl does not forward a port", found=last_line, where=" ".join(command))
    return ports[0]
