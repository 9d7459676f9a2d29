"""Access to a cluster: kfp's own client, signed in, whose every refusal is one message.

The generated client underneath takes whatever it is given for an answer: a page to sign in at, which is what a
gateway answers once a cookie has expired, becomes a run with no state. So each answer is looked at where it arrives.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import ssl
import urllib.parse
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from pipelines.kubeflow import auth as login
from rankline.contracts import FrozenModel
from rankline.errors import AccessError, RanklineError, UsageError

Auth = Literal["none", "token", "cookie", "dex", "existing", "port-forward"]
_TIMEOUT_S = (10.0, 60.0)  # to connect, and to wait for an answer
_RETRIES = 2


class Access(FrozenModel):
    """Where a cluster is and how to sign in to it."""

    host: str = Field("", description="URL of Kubeflow Pipelines; empty for kfp's own settings.")
    namespace: str = Field("", description="Your profile's namespace; empty where Pipelines has a single user.")
    auth: Auth = Field("existing", description="How to sign in.")
    context: str = Field("", description="Context of the kubeconfig, for existing and port-forward; the current one.")
    system: str = Field("kubeflow", description="Namespace that Kubeflow Pipelines itself runs in.")
    ca: str = Field("", description="File with the certificate authority that signed the host's certificate.")


@dataclass(frozen=True)
class Cluster:
    """A cluster that answers."""

    client: Any  # kfp.Client
    namespace: str  # empty where there is a single user
    host: str
    cache: dict[str, Any] = field(default_factory=dict, compare=False)  # id -> what it is, once asked for

    @property
    def namespace_or_none(self) -> str | None:
        """The namespace as the API wants it: none where there is a single user."""
        return self.namespace or None

    def ui_url(self, what: str, name: str) -> str:
        """The address of a run, an experiment or a recurring run in the UI."""
        return f"{self.client._get_url_prefix()}/#/{what}/details/{name}"

    def kubectl_namespace(self) -> str:
        """`-n NAMESPACE` of kubectl, for the pods of its runs."""
        return f"-n {self.namespace or self.client.get_user_namespace() or 'kubeflow'}"


@contextlib.contextmanager
def connected(access: Access) -> Iterator[Cluster]:
    """The cluster, signed in and asked whether it is there; a port is forwarded as long as the block lasts.

    Raises:
        UsageError: what signing in needs is missing, or the namespace.
        AccessError: it does not answer, or lets nobody in.
    """
    if access.auth == "port-forward":
        with login.forwarded_port(access.context, access.system) as url:
            yield connect(access.model_copy(update={"host": url}))
    else:
        yield connect(access)


def connect(access: Access) -> Cluster:
    """The cluster, signed in and asked whether it is there.

    Raises:
        UsageError: what signing in needs is missing, or the namespace.
        AccessError: it does not answer, or lets nobody in.
    """
    host = _host(access)
    options: dict[str, Any] = {"ssl_ca_cert": access.ca or None}
    if access.auth == "token":
        login.token()
        options["credentials"] = _credentials()
    elif access.auth == "cookie":
        options["cookies"] = login.cookie()
    elif access.auth == "dex":
        options["cookies"] = login.dex_cookies(host, ca=access.ca or None)
    elif access.auth == "existing" and access.context:
        options["kube_context"] = access.context
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()) as captured:
        warnings.simplefilter("ignore")
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # what is asked again is no news
        import kfp
        import kfp_server_api

        class Client(kfp.Client):  # type: ignore[misc]
            """kfp's client; what it asks while it is made is asked once, and looked at like all the rest."""

            def _load_config(self, *given: Any) -> Any:
                config = super()._load_config(*given)
                if "Failed to load kube config" in captured.getvalue():
                    raise _no_host_error(access)
                refresh, server = config.refresh_api_key_hook, config.host

                def refreshed(configuration: Any) -> None:
                    refresh(configuration)
                    # a kubeconfig's hook puts the bare cluster back, without the way to Pipelines, and itself
                    configuration.host, configuration.refresh_api_key_hook = server, refreshed

                if refresh is not None:
                    config.refresh_api_key_hook = refreshed
                return config

            def set_user_namespace(self, namespace: str) -> None:
                self._context_setting["namespace"] = namespace  # and not in the user's own settings

            def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
                _check_responses(self._healthz_api.api_client, host or self._existing_config.host)
                return self._healthz_api.healthz_service_get_healthz()

        # kfp takes this namespace for the one that Pipelines itself runs in, when it goes by a kubeconfig
        client = Client(host=host or None, namespace=access.system, **options)
    where = client._existing_config.host
    if not isinstance(client._run_api.api_client.rest_client.request, _CheckedRequest):
        _check_responses(client._run_api.api_client, where)
    health: kfp_server_api.V2beta1GetHealthzResponse = client._healthz_api.healthz_service_get_healthz()
    namespace = access.namespace or client.get_user_namespace() or ""
    if health.multi_user and not namespace:
        raise UsageError(
            "Kubeflow Pipelines has several users here, and no namespace is given",
            expected="--namespace with your profile's namespace",
            where=where,
        )
    if not health.multi_user:
        namespace = ""
    client._context_setting["namespace"] = namespace
    return Cluster(client, namespace, where)


def _no_host_error(access: Access) -> UsageError:
    return UsageError(
        "nothing says where Kubeflow Pipelines is",
        expected="--host URL, KF_PIPELINES_ENDPOINT, a kubeconfig, or a pod of the cluster",
        found="none of them" + (f", and no context {access.context!r}" if access.context else ""),
        hint="--host https://kubeflow.example.com/pipeline --auth dex",
    )


def _host(access: Access) -> str:
    host = access.host.rstrip("/") or (os.environ.get("KF_PIPELINES_ENDPOINT", "").rstrip("/"))
    if not host and access.auth != "existing":
        raise UsageError(
            f"--auth {access.auth} needs a host",
            expected="--host URL, or KF_PIPELINES_ENDPOINT",
            hint="for Kubeflow's gateway the URL ends in /pipeline",
        )
    if host and urllib.parse.urlsplit(host).scheme not in ("http", "https"):
        raise UsageError(f"{host} is no URL", expected="http://… or https://…", hint=f"--host https://{host}")
    if access.ca and not os.path.isfile(access.ca):
        raise UsageError("there is no such file", found=access.ca, expected="certificates, PEM")
    return host


def _credentials() -> Any:
    from kfp.client.token_credentials_base import TokenCredentialsBase

    class Token(TokenCredentialsBase):  # type: ignore[misc]
        """The token as it is at each request: a projected one is written anew while a run is watched."""

        def refresh_api_key_hook(self, config: Any) -> None:
            config.api_key["authorization"] = login.token()

    return Token()


class _CheckedRequest:
    """The one way to the server: asks again what may be asked twice, and turns what is no answer into one message."""

    def __init__(self, request: Any, where: str) -> None:
        self._request, self._where = request, where

    def __call__(self, method: str, url: str, **options: Any) -> Any:
        import urllib3
        from kfp_server_api import ApiException

        options["_request_timeout"] = options.get("_request_timeout") or _TIMEOUT_S
        try:
            response = self._request(method, url, **options)
        except ApiException as error:
            raise api_error(error, self._where) from error
        except urllib3.exceptions.HTTPError as error:
            raise unreachable_error(error, self._where) from error
        if options.get("_preload_content", True) and _is_html(response):
            raise signed_out_error(self._where)
        return response


def _check_responses(api_client: Any, where: str) -> None:
    import urllib3

    rest = api_client.rest_client
    if not isinstance(rest.request, _CheckedRequest):
        # what creates something is never sent twice; redirects are followed, to see where they lead
        rest.pool_manager.connection_pool_kw["retries"] = urllib3.Retry(
            total=6, other=0, connect=_RETRIES, read=_RETRIES, redirect=5, status=_RETRIES,
            status_forcelist=(502, 503, 504), allowed_methods=("GET",), backoff_factor=0.2, raise_on_status=False,
        )  # fmt: skip
        rest.request = _CheckedRequest(rest.request, where)


def _is_html(response: Any) -> bool:
    body = response.data[:200].lstrip() if response.data else b""
    text = body.decode(errors="replace") if isinstance(body, bytes) else body
    return "html" in (response.urllib3_response.headers.get("content-type") or "").lower() or text[:1] == "<"


def signed_out_error(where: str) -> AccessError:
    """The refusal for a page to sign in at, in place of an answer."""
    return AccessError(
        "this host answers with a page to sign in at: the session has expired, or there is none",
        expected="an answer of the Kubeflow Pipelines API",
        found="HTML",
        where=where,
        hint=f"a new cookie in {login.COOKIE}, --auth dex, or the path that --host lacks (/pipeline)",
    )


class Unreachable(AccessError):
    """The cluster does not answer now; it may in a moment."""


def unreachable_error(error: Exception, where: str) -> AccessError:
    """The refusal for a host that cannot be reached, or whose certificate is not to be trusted."""
    reason: BaseException = getattr(error, "reason", None) or error
    text = f"{error} {reason}"
    if isinstance(reason, ssl.SSLError) or "SSLError" in text or "CERTIFICATE" in text:
        found = text[text.find("[SSL") :].split("(_ssl")[0].strip() if "[SSL" in text else str(reason)
        return AccessError(
            "the host's certificate is not trusted",
            found=found,
            where=where,
            hint="--ca FILE with the authority that signed it",
        )
    kind = type(reason).__name__
    return Unreachable(
        "Kubeflow Pipelines cannot be reached",
        found={"NewConnectionError": "connection refused", "NameResolutionError": "no such host"}.get(kind, kind),
        where=where,
        hint="is the address right, is the port still forwarded, is there a proxy between?",
    )


def api_error(error: Any, where: str) -> RanklineError:
    """An answer of the API that is an error, as one of ours."""
    import json

    body = error.body.decode(errors="replace") if isinstance(error.body, bytes) else error.body or ""
    try:
        payload = json.loads(body)
        is_api_error = isinstance(payload, dict)
        message = str(payload.get("error_message") or payload.get("message") or payload.get("error") or body)
    except (ValueError, AttributeError):
        message, is_api_error = body.strip(), False
    message = message.splitlines()[0][:400] if message and not message.lstrip().startswith("<") else ""
    if error.status in (401, 403) and body.lstrip().startswith("<"):
        return signed_out_error(where)
    if error.status == 0:
        return unreachable_error(Exception(error.reason or ""), where)
    if error.status == 401:
        return AccessError(
            "the cluster does not know who asks (401)",
            found=message or "no identity, or an expired one",
            where=where,
            hint="--auth token, cookie or dex; a token expires, and needs the audience pipelines.kubeflow.org",
        )
    if error.status == 403:
        return AccessError(
            "you may not do that there (403)",
            found=message or "no permission",
            where=where,
            hint="--namespace with a profile of yours; who owns it adds contributors",
        )
    if error.status == 404:
        if not is_api_error or "not found" not in message.lower():
            return AccessError(
                "there is no Kubeflow Pipelines API at this address (404)",
                found=message or "HTTP 404",
                where=where,
                hint="for Kubeflow's gateway the URL ends in /pipeline",
            )
        return NotFound("the cluster does not have it", found=message, where=where)
    if error.status == 409:
        return AlreadyExists("it is there already", found=message, where=where)
    if error.status == 400:
        return UsageError("the cluster refuses this", found=message or "HTTP 400", where=where)
    kind = Unreachable if error.status >= 500 else AccessError
    return kind(f"the cluster fails (HTTP {error.status})", found=message or error.reason or "", where=where)


class NotFound(UsageError):
    """What was asked for is not on the cluster."""


class AlreadyExists(RanklineError):
    """Somebody else was quicker to create it."""
