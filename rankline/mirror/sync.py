"""Make MLflow show what the registry says: compare both, and change what is missing or points elsewhere.

The tags of a version are the record that its run is complete: they are written last. So a sync that is killed anywhere
is continued by the next one, and a second one changes nothing. Versions of models that this registry does not know are
left alone.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rankline.errors import RanklineError
from rankline.io.files import locked
from rankline.mirror.candidates import CandidateRecord, aliases, candidate_records
from rankline.mirror.config import TrackingConfig
from rankline.mirror.run_record import FORMAT, FORMAT_TAG, Source, tags_of, write_run
from rankline.registry.model_registry import ModelRegistry
from rankline.registry.registry_state import Event
from rankline.runtime.bucket_workspace import BucketWorkspace

LOCK_TIMEOUT_S = 600.0
# MLflow reads these when it is imported. It gives up on a server that does not answer within seconds.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
# tags that a version loses when the registry says nothing of the kind any more; the others are facts that stay
_TEMPORARY = ("break_glass", "removed", "verdict")
_ALIASES = ("champion", "candidate")


@dataclass(frozen=True)
class Change:
    """What differed: ``subject`` is version, run, tag or alias; ``before`` and ``after`` are empty for none."""

    subject: str
    model_id: str
    name: str
    before: str
    after: str

    def __str__(self) -> str:
        arrow = f"{self.before or 'none'} -> {self.after or 'none'}"
        if self.subject == "alias":
            return f"alias {self.name}: {arrow}"
        return f"model {self.model_id}: {self.subject} {self.name}: {arrow}".replace(" : ", ": ")


@dataclass
class Synced:
    """What a sync changed, and what it could not read."""

    uri: str
    models: int = 0
    versions: dict[str, int] = field(default_factory=dict)  # model id -> version
    changes: list[Change] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def sync(
    models: ModelRegistry,
    *,
    config: TrackingConfig,
    workspace: Path,
    bucket: BucketWorkspace | None = None,
    only: Sequence[str] | None = None,
    dry_run: bool = False,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
    notice: Callable[[Change], None] = lambda change: None,
) -> Synced:
    """Compare every candidate (or ``only`` some) and the aliases with MLflow, and change what differs.

    ``notice`` is called with each change as it is made. A ``dry_run`` writes nothing, not even MLflow's tables. With a
    ``bucket`` its lock keeps two machines apart. Raises whatever MLflow and its database raise.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for logger_name in ("mlflow", "alembic"):
        logging.getLogger(logger_name).setLevel(logging.WARNING)
    workspace = workspace.resolve()
    synced = Synced(config.uri_in(str(workspace)))
    if dry_run and not _has_tables(synced.uri):
        _Sync(None, models, config, workspace, bucket, synced, dry_run, notice).run(only)
        return synced
    # two processes that open a new SQLite database at once fail in its migration
    with _lock(workspace, bucket, lock_timeout_s) if not dry_run else contextlib.nullcontext():
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=synced.uri, registry_uri=synced.uri)
        _Sync(client, models, config, workspace, bucket, synced, dry_run, notice).run(only)
    return synced


@contextlib.contextmanager
def _lock(workspace: Path, bucket: BucketWorkspace | None, timeout_s: float) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(workspace / ".mlflow.lock", timeout_s=timeout_s))
        if bucket:
            stack.enter_context(bucket.lock("mlflow").held(timeout_s=timeout_s, owner={"who": "MLflow"}))
        yield


def _has_tables(uri: str) -> bool:
    """Whether a database has MLflow's tables, which its client would create; a server has some."""
    if uri.startswith(("http://", "https://")):
        return True
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        return False
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri)
    try:
        return sqlalchemy.inspect(engine).has_table("model_versions")
    finally:
        engine.dispose()


@dataclass(frozen=True)
class _Sync:
    """One sync; without a client nothing is there yet."""

    client: Any
    models: ModelRegistry
    config: TrackingConfig
    workspace: Path
    bucket: BucketWorkspace | None
    synced: Synced
    dry_run: bool
    notice: Callable[[Change], None]

    @property
    def source(self) -> Source:
        """Where the candidates' files are."""
        return Source(self.models, self.workspace / "runs")

    @property
    def writes_pages(self) -> bool:
        """Whether pages can be stored: MLflow would need boto3 to write them into a bucket."""
        return self.bucket is None or self.config.is_server or bool(self.config.artifact_location)

    def run(self, only: Sequence[str] | None) -> None:
        """Do it: the aliases whose versions are there first, then the candidates, oldest first, then the others."""
        history = self.models.history()
        records = candidate_records(history)
        versions = self._versions()
        self._set_aliases(history, versions)
        chosen = [record for record in records.values() if only is None or record.model_id in only]
        for record in chosen:
            try:
                self._sync_candidate(record, versions, is_deep=only is None)
            except RanklineError as error:  # damaged evidence; MLflow's own errors end the sync
                self.synced.problems.append(f"model {record.model_id}: {error.message}")
        self.synced.models = len(chosen)
        self._set_aliases(history, versions)
        while not self.dry_run and aliases(newer := self.models.history()) != aliases(history):
            history = newer  # somebody promoted meanwhile, and may have set the alias before this did
            self._set_aliases(history, versions)
        self.synced.versions = {
            model_id: int(version.version) for model_id, version in versions.items() if model_id in records and version
        }

    def _change(self, subject: str, model_id: str, name: str, before: str, after: str) -> bool:
        """Note a change; whether it is to be made."""
        change = Change(subject, model_id, name, before, after)
        if change not in self.synced.changes:
            self.synced.changes.append(change)
            self.notice(change)
        return not self.dry_run

    def _versions(self) -> dict[str, Any]:
        """Model id -> its version; of several the first one."""
        if self.client is None:
            return {}
        if not self.dry_run:
            _ignoring("RESOURCE_ALREADY_EXISTS", self.client.create_registered_model, self.config.registered_model)
        versions: dict[str, Any] = {}
        query = f"name = '{self.config.registered_model}'"
        for version in _pages(self.client.search_model_versions, query, max_results=1000):
            model_id = version.tags.get("model_id", "")
            if model_id not in versions or int(version.version) < int(versions[model_id].version):
                versions[model_id] = version
        return versions

    # -- one candidate -------------------------------------------------------------------------------------------

    def _sync_candidate(self, record: CandidateRecord, versions: dict[str, Any], *, is_deep: bool) -> None:
        version, model_id = versions.get(record.model_id), record.model_id
        if version is None and record.removed:
            return  # there is nothing left that could be shown
        tags = tags_of(record, self.source)
        before = version.tags if version else {}
        is_current = before.get(FORMAT_TAG) == FORMAT and before.get("evaluation", "") == tags.get("evaluation", "")
        problem = self._run_problem(version) if version and is_current and is_deep else ""
        if version and is_current and not problem and before.get("verdict", "") == tags.get("verdict", ""):
            self._set_tags(record, version, tags)
            return
        if version is None:
            if self._change("version", model_id, "", "", "new"):
                versions[model_id] = self._create_version(record, tags)
            return
        why = problem or ("other evidence" if FORMAT_TAG in before else "of an earlier Rankline")
        if record.removed and not self.source.manifest(model_id):  # what it shows cannot be written anew
            self._set_tags(record, version, tags)
        elif self._change("run", model_id, "", why, "written"):
            if problem == "gone":  # the version points at nothing: a new one takes its place
                self.client.delete_model_version(self.config.registered_model, version.version)
                versions[model_id] = self._create_version(record, tags)
                return
            if problem == "deleted":
                self.client.restore_run(version.run_id)
            write_run(
                self.client, version.run_id, record, self.source, tags=tags, pages=self.writes_pages
            )  # fmt: skip
            self._set_tags(record, version, tags)

    def _run_problem(self, version: Any) -> str:
        """What is wrong with the run of a version; empty if nothing is."""
        from mlflow.exceptions import MlflowException

        try:
            run = self.client.get_run(version.run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return "gone"
        if run.info.lifecycle_stage == "deleted":
            return "deleted"
        if run.info.status != "FINISHED":
            return "unfinished"
        if self.writes_pages and version.tags.get("pages") and not self.client.list_artifacts(version.run_id):
            return "without pages"
        return ""

    def _create_version(self, record: CandidateRecord, tags: dict[str, str]) -> Any:
        run_id = self._run_id(record, tags)
        write_run(self.client, run_id, record, self.source, tags=tags, pages=self.writes_pages)
        bundle = tags["bundle"]
        # a server refuses a local path as a version's source: there the run's artifacts stand in for the bundle
        is_local = bundle.startswith(("file:", "/"))
        source = self.client.get_run(run_id).info.artifact_uri if is_local and self.config.is_server else bundle
        return self.client.create_model_version(
            self.config.registered_model,
            source,
            run_id=run_id,
            tags=self._version_tags(tags, run_id),
            description=record.newest.why,
        )

    def _version_tags(self, tags: dict[str, str], run_id: str) -> dict[str, str]:
        has_pages = self.writes_pages and bool(self.client.list_artifacts(run_id))
        return {**tags, FORMAT_TAG: FORMAT, **({"pages": "yes"} if has_pages else {})}

    def _run_id(self, record: CandidateRecord, tags: dict[str, str]) -> str:
        """The MLflow run of a candidate: one that an interrupted sync left, or a new one."""
        experiment = self.client.get_experiment_by_name(self.config.experiment)
        if experiment is not None:
            if experiment.lifecycle_stage == "deleted":
                self.client.restore_experiment(experiment.experiment_id)
            experiment_id = experiment.experiment_id
        else:  # a server has a default for its artifacts, a database in the workspace has none
            files_url = f"{self.bucket.url}/mlruns" if self.bucket else (self.workspace / "mlruns").as_uri()
            location = self.config.artifact_location or (None if self.config.is_server else files_url)
            experiment_id = self.client.create_experiment(self.config.experiment, artifact_location=location)
        runs = self.client.search_runs([experiment_id], f"tags.model_id = '{record.model_id}'", max_results=1)
        if not runs:
            name = record.evaluated.run_id or record.model_id
            runs = [self.client.create_run(experiment_id, tags={"model_id": record.model_id}, run_name=name)]
        return str(runs[0].info.run_id)

    def _set_tags(self, record: CandidateRecord, version: Any, tags: dict[str, str]) -> None:
        """Set the tags of a version and its run that differ, and the version's description."""
        name, before = self.config.registered_model, version.tags
        expected = {**tags, FORMAT_TAG: FORMAT}
        if before.get("pages"):
            expected["pages"] = before["pages"]
        for tag, value in expected.items():
            if before.get(tag) != value and self._change("tag", record.model_id, tag, before.get(tag, ""), value):
                _ignoring("RESOURCE_DOES_NOT_EXIST", self.client.set_tag, version.run_id, tag, value)
                self.client.set_model_version_tag(name, version.version, tag, value)
        for tag in _TEMPORARY:
            if tag in before and tag not in tags and self._change("tag", record.model_id, tag, before[tag], ""):
                _ignoring("RESOURCE_DOES_NOT_EXIST", self.client.delete_tag, version.run_id, tag)
                self.client.delete_model_version_tag(name, version.version, tag)
        if version.description != record.newest.why and self._change(
            "description", record.model_id, "", version.description or "", record.newest.why
        ):
            self.client.update_model_version(name, version.version, description=record.newest.why)

    # -- aliases -------------------------------------------------------------------------------------------------

    def _set_aliases(self, history: Sequence[Event], versions: dict[str, Any]) -> None:
        """Let each alias name the version of its model, as far as that is there."""
        expected = aliases(history)
        name = self.config.registered_model
        present = {} if self.client is None else dict(self._registered_aliases())
        models_of = {str(version.version): model_id for model_id, version in versions.items()}
        for alias in _ALIASES:
            model_id, current = expected.get(alias, ""), str(present.get(alias, ""))
            version = versions.get(model_id)
            if model_id and version is None:
                if self.dry_run:
                    self._change("alias", model_id, alias, models_of.get(current, current), model_id)
            elif model_id and version is not None and str(version.version) != current:
                if self._change("alias", model_id, alias, models_of.get(current, current), model_id):
                    self.client.set_registered_model_alias(name, alias, version.version)
            elif not model_id and current in models_of and self._change("alias", "", alias, models_of[current], ""):
                self.client.delete_registered_model_alias(name, alias)

    def _registered_aliases(self) -> dict[str, str]:
        from mlflow.exceptions import MlflowException

        try:
            return dict(self.client.get_registered_model(self.config.registered_model).aliases)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return {}


def _pages(search: Callable[..., Any], *arguments: Any, **options: Any) -> Iterator[Any]:
    """Everything that a search of MLflow's client finds, page by page."""
    token = None
    while True:
        page = search(*arguments, page_token=token, **options)
        yield from page
        token = page.token
        if not token:
            return


def _ignoring(error_code: str, call: Callable[..., Any], *arguments: Any) -> None:
    """Call MLflow's client; an error with this code is none."""
    from mlflow.exceptions import MlflowException

    try:
        call(*arguments)
    except MlflowException as error:
        if error.error_code != error_code:
            raise
