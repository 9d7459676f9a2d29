"""The ways to sign in to Kubeflow: where a token or a cookie comes from, and a port that is forwarded.

Secrets come from the environment or from files, never from the command line, where every user of a machine sees them.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from rankline.errors import AccessError, UsageError

TOKEN, TOKEN_FILE = "RANKLINE_KFP_TOKEN", "RANKLINE_KFP_TOKEN_FILE"
COOKIE = "RANKLINE_KFP_COOKIE"
USER, PASSWORD = "RANKLINE_KFP_USER", "RANKLINE_KFP_PASSWORD"
PROJECTED = Path("/var/run/secrets/kubeflow/pipelines/token")  # where Kubeflow's own PodDefault puts one
_TIMEOUT_S = 20.0


def token_file() -> Path | None:
    """The file that holds a service account's token, or none where the environment holds the token itself.

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
    """The token as it is now: a projected one is written anew before it expires.

    Raises:
        UsageError: there is none, or the file is empty.
    """
    path = token_file()
    found = os.environ[TOKEN] if path is None else path.read_text()
    if not (found := found.strip()):
        raise UsageError("the service account token is empty", found=str(path or TOKEN))
    return found


def cookie() -> str:
    """The session cookie of the environment, as NAME=VALUE.

    Raises:
        UsageError: there is none, or it has no name.
    """
    found = os.environ.get(COOKIE, "").strip().removeprefix("Cookie:").strip()
    if not re.match(r"^[^=;\s]+=\S", found):
        raise UsageError(
            "there is no session cookie" if not found else "the session cookie has no name",
            expected=f"NAME=VALUE in {COOKIE}, such as authservice_session=… or oauth2_proxy_kubeflow=…",
            found="nothing" if not found else "a value alone",
            hint="copy it from a browser that is signed in, or let --auth dex sign in",
        )
    return found


class _Form(HTMLParser):
    """The first form of a page: where it is sent, how, and its fields."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.action: str | None = None
        self.method = "get"
        self.fields: dict[str, str] = {}
        self.links: list[str] = []
        self._open = False
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Note forms, their fields, and links."""
        values = {name: value or "" for name, value in attributes}
        if tag == "form" and self.action is None:
            self.action, self.method, self._open = values.get("action", ""), values.get("method", "get").lower(), True
        elif tag in ("input", "button") and self._open and values.get("name"):
            self.fields[values["name"]] = values.get("value", "")
        elif tag == "a" and values.get("href"):
            self.links.append(values["href"])

    def handle_endtag(self, tag: str) -> None:
        """A form ends."""
        if tag == "form":
            self._open = False


def dex_cookies(host: str, *, ca: str | None) -> str:
    """Sign in at dex with the user and password of the environment; the session's cookies.

    Follows the redirects to dex, chooses the connector for passwords where there are several, fills in the form and
    approves where it is asked to.

    Raises:
        UsageError: the environment names no user or password, or they are not the right ones.
        AccessError: the host does not lead to a page to sign in at.
    """
    import requests

    user, password = os.environ.get(USER), os.environ.get(PASSWORD)
    if not user or not password:
        missing = " and ".join(name for name, value in ((USER, user), (PASSWORD, password)) if not value)
        raise UsageError("dex asks for a user and a password", expected=f"{USER} and {PASSWORD}", found=f"no {missing}")
    with requests.Session() as session:
        session.verify = ca or True
        try:
            page = session.get(host, timeout=_TIMEOUT_S)
            if page.status_code in (401, 403):  # oauth2-proxy refuses a program where it would redirect a browser
                page = session.get(urllib.parse.urljoin(host, "/oauth2/start"), timeout=_TIMEOUT_S)
            if not page.history:
                raise AccessError(
                    "this host asks nobody to sign in",
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
                    "there is no form for a password where this host leads to",
                    expected="dex with its local connector",
                    found=f"HTTP {page.status_code}",
                    where=page.url.split("?")[0],
                    hint=f"sign in with a browser and put its cookie into {COOKIE} (--auth cookie)",
                )
            target = urllib.parse.urljoin(page.url, form.action or page.url)
            page = session.post(target, data={**form.fields, "login": user, "password": password}, timeout=_TIMEOUT_S)
            if "approval" in (approval_form := _Form(page.text)).fields:
                target = urllib.parse.urljoin(page.url, approval_form.action or page.url)
                page = session.post(target, data={**approval_form.fields, "approval": "approve"}, timeout=_TIMEOUT_S)
        except requests.exceptions.RequestException as error:
            from pipelines.kubeflow.client import unreachable_error

            raise unreachable_error(error, host) from error
        if "password" in _Form(page.text).fields:
            raise UsageError("dex does not take this password", found=f"user {user}", where=host)
        hostname = urllib.parse.urlsplit(host).hostname or ""
        found = [f"{each.name}={each.value}" for each in session.cookies if hostname.endswith(each.domain.lstrip("."))]
    if not found:
        raise AccessError("signing in left no session", found=f"HTTP {page.status_code}", where=host)
    return "; ".join(found)


_FORWARDING = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")


@contextlib.contextmanager
def forwarded_port(context: str, system: str) -> Iterator[str]:
    """`kubectl port-forward` to Kubeflow's UI, which hands requests on to the API; the URL, as long as the block lasts.

    Raises:
        UsageError: kubectl is not there.
        AccessError: it ended before it forwarded anything; its own message is told.
    """
    if shutil.which("kubectl") is None:
        raise UsageError(
            "kubectl is not there", expected="kubectl on the PATH", hint="or --auth existing with --context"
        )
    command = ["kubectl", *(["--context", context] if context else []), "-n", system]
    command += ["port-forward", "--address", "127.0.0.1", "svc/ml-pipeline-ui", ":80"]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield f"http://127.0.0.1:{_read_port(process, command)}"
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()


def _read_port(process: subprocess.Popen[str], command: list[str]) -> str:
    found: dict[str, Any] = {}
    ready = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:  # to its end, so that it never waits for a reader
            if (match := _FORWARDING.search(line)) and "port" not in found:
                found["port"] = match[1]
                ready.set()
        ready.set()

    threading.Thread(target=read, daemon=True).start()
    deadline = time.monotonic() + _TIMEOUT_S
    while not ready.wait(0.1) and time.monotonic() < deadline:
        pass
    if "port" not in found:
        process.terminate()
        assert process.stderr is not None
        last_line = (process.stderr.read().strip().splitlines() or ["nothing"])[-1]
        raise AccessError("kubectl forwards no port", found=last_line, where=" ".join(command))
    port: str = found["port"]
    return port
