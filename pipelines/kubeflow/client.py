"""A connection to a cluster: kfp's own client, signed in, with errors of one message.

The generated client underneath accepts anything as an answer. The sign-in page of a gateway, which answers so once a
cookie has expired, becomes a run without a state. So each answer is checked where it arrives.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import urllib.parse
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from pipelines.kubeflow.auth import cookie, dex_cookies, forwarded_port, token
from pipelines.kubeflow.errors import NotFound, api_error, signed_out_error, unreachable_error
from pipelines.kubeflow.limits import check_limits
from pipelines.kubeflow.records import Record
from pipelines.kubeflow.remote_files import RemoteFiles
from rankline.contracts import FrozenModel
from rankline.errors import UsageError

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
    context: str = ""  # of the kubeconfig, for what only Kubernetes knows; the current one
    ignored_namespace: str = ""  # one that was asked for where there is a single user
    files: RemoteFiles = field(default_factory=RemoteFiles, compare=False)
    _cache: dict[str, Any] = field(default_factory=dict, compare=False)  # by id: None for what is not there

    @property
    def namespace_or_none(self) -> str | None:
        """The namespace as the API wants it: None where there is a single user."""
        return self.namespace or None

    def ui_url(self, what: str, name: str) -> str:
        """The address of a run, an experiment or a recurring run in the UI."""
        return f"{self.client._get_url_prefix()}/#/{what}/details/{name}"

    def pod_namespace(self) -> str:
        """The namespace of the pods of its runs."""
        return self.namespace or self.client.get_user_namespace() or "kubeflow"

    def kubectl_namespace(self) -> str:
        """`-n NAMESPACE` of kubectl, for the pods of its runs."""
        return f"-n {self.pod_namespace()}"

    def experiment_id(self, name: str) -> str:
        """The id of an experiment, which is created where there is none."""
        check_limits({"experiment name": name, "namespace": self.namespace})
        with quiet_stdout():
            experiment = self.client.create_experiment(name, namespace=self.namespace_or_none)
        return str(experiment.experiment_id)

    def run(self, id: str) -> Record:
        """A run as the API has it now, with its tasks."""
        fields = self.client._run_api.api_client.call_api(
            "/apis/v2beta1/runs/{run_id}",
            "GET",
            path_params={"run_id": id},
            header_params={"Accept": "application/json"},
            response_type="object",
            auth_settings=["Bearer"],
            _return_http_data_only=True,
        )
        return Record(fields)

    def recurring_run(self, id: str) -> Any:
        """A recurring run as the API has it, requested once; None where it has been deleted."""
        return self._get_once(id, self.client.get_recurring_run)

    def pipeline(self, id: str) -> Any:
        """A pipeline as the API has it, requested once; None where it has been deleted."""
        return self._get_once(id, self.client.get_pipeline)

    def package(self, pipeline_id: str, version_id: str) -> dict[str, Any]:
        """The package of a version of a pipeline, requested once; empty where it has been deleted."""
        version = self._get_once(version_id, lambda id: self.client.get_pipeline_version(pipeline_id, id))
        return (version and version.pipeline_spec) or {}

    def _get_once(self, id: str, get: Callable[[str], Any]) -> Any:
        if id not in self._cache:
            try:
                self._cache[id] = get(id)
            except NotFound:
                self._cache[id] = None
        return self._cache[id]


def quiet_stdout() -> contextlib.AbstractContextManager[Any]:
    """Keep kfp from printing links while the block runs."""
    return contextlib.redirect_stdout(io.StringIO())


@contextlib.contextmanager
def connected(access: Access) -> Iterator[Cluster]:
    """A connection to the cluster; a forwarded port stays open while the block runs.

    Raises:
        UsageError: the namespace or something that signing in needs is missing.
        AccessError: the cluster does not answer, or refuses the sign-in.
    """
    if access.auth == "port-forward":
        with forwarded_port(access.context, access.system) as url:
            yield connect(access.model_copy(update={"host": url}))
    else:
        yield connect(access)


def connect(access: Access) -> Cluster:
    """A connection to the cluster.

    Raises:
        UsageError: the namespace or something that signing in needs is missing.
        AccessError: the cluster does not answer, or refuses the sign-in.
    """
    host = _host(access)
    options = _client_options(access, host)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()) as captured:
        warnings.simplefilter("ignore")
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # no line for each retry
        # kfp takes this namespace for the one that Pipelines itself runs in, when it goes by a kubeconfig
        client = _client_class(access, host, captured)(host=host or None, namespace=access.system, **options)
    where = client._existing_config.host
    _check_responses(client._run_api.api_client, where)
    health = client._healthz_api.healthz_service_get_healthz()
    namespace = (access.namespace or client.get_user_namespace() or "") if health.multi_user else ""
    ignored = "" if health.multi_user or access.namespace == access.system else access.namespace
    if health.multi_user and not namespace:
        raise UsageError(
            "Kubeflow Pipelines has several users here, and no namespace is given",
            expected="--namespace with your profile's namespace",
            where=where,
        )
    client._context_setting["namespace"] = namespace
    return Cluster(client, namespace, where, access.context, ignored)


def _client_options(access: Access, host: str) -> dict[str, Any]:
    """The arguments of kfp's client that sign in."""
    options: dict[str, Any] = {"ssl_ca_cert": access.ca or None}
    if access.auth == "token":
        token()  # here, so that a missing one is an error of its own
        options["credentials"] = _credentials()
    elif access.auth == "cookie":
        options["cookies"] = cookie()
    elif access.auth == "dex":
        options["cookies"] = dex_cookies(host, ca=access.ca or None)
    elif access.auth == "existing" and access.context:
        options["kube_context"] = access.context
    return options


def _client_class(access: Access, host: str, captured: io.StringIO) -> Any:
    """kfp's client with the answers checked that it requests while it is created; imported late, as kfp is slow."""
    import kfp

    class Client(kfp.Client):  # type: ignore[misc]
        def _load_config(self, *given: Any) -> Any:
            config = super()._load_config(*given)
            if "Failed to load kube config" in captured.getvalue():
                raise _no_host_error(access)
            refresh, server = config.refresh_api_key_hook, config.host

            def refreshed(configuration: Any) -> None:
                refresh(configuration)
                # a kubeconfig's hook restores the bare cluster, without the path to Pipelines, and itself
                configuration.host, configuration.refresh_api_key_hook = server, refreshed

            if refresh is not None:
                config.refresh_api_key_hook = refreshed
            return config

        def set_user_namespace(self, namespace: str) -> None:
            self._context_setting["namespace"] = namespace  # not in the user's own settings

        def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
            _check_responses(self._healthz_api.api_client, host or self._existing_config.host)
            return self._healthz_api.healthz_service_get_healthz()

    return Client


def _no_host_error(access: Access) -> UsageError:
    return UsageError(
        "the address of Kubeflow Pipelines is not set",
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
        raise UsageError(f"{host} is not a URL", expected="http://… or https://…", hint=f"--host https://{host}")
    if access.ca and not os.path.isfile(access.ca):
        raise UsageError("the file of --ca does not exist", expected="certificates in PEM format", found=access.ca)
    return host


def _credentials() -> Any:
    from kfp.client.token_credentials_base import TokenCredentialsBase

    class Token(TokenCredentialsBase):  # type: ignore[misc]
        """The current token for each request: a projected one is renewed while a run is watched."""

        def refresh_api_key_hook(self, config: Any) -> None:
            config.api_key["authorization"] = token()

    return Token()


class _CheckedRequest:
    """Sends every request to the server, and turns what is not an answer into an error of one message."""

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
        # only GET is retried, so nothing is created twice; redirects are followed, to see where they lead
        rest.pool_manager.connection_pool_kw["retries"] = urllib3.Retry(
            total=6, other=0, connect=_RETRIES, read=_RETRIES, redirect=5, status=_RETRIES,
            status_forcelist=(502, 503, 504), allowed_methods=("GET",), backoff_factor=0.2, raise_on_status=False,
        )  # fmt: skip
        rest.request = _CheckedRequest(rest.request, where)


def _is_html(response: Any) -> bool:
    body = response.data[:200].lstrip() if response.data else b""
    text = body.decode(errors="replace") if isinstance(body, bytes) else body
    return "html" in (response.urllib3_response.headers.get("content-type") or "").lower() or text[:1] == "<"
