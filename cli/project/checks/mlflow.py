"""MLflow: the tracking server answers, or the database has the tables of the installed MLflow. None are created."""

from __future__ import annotations

import importlib.util
import os
import sqlite3
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cli.project.checks.model import TIMEOUT_S, CheckContext, Finding, error_line, redacted

if TYPE_CHECKING:
    from sqlalchemy import Engine

NONE_YET = "none yet; the first promotion creates it"


def mlflow(context: CheckContext) -> Iterator[Finding]:
    """The tracking database or server answers."""
    path = context.workspace.resolve() / "mlflow.db"
    uri = context.recipe.promote.tracking_uri or f"sqlite:///{path}"
    try:
        yield _server(uri) if uri.startswith(("http://", "https://")) else _database(uri)
    except Exception as error:  # every driver has its own errors
        restart = f"mv {path} {path}.damaged: the next promotion creates a new one"
        hint = "start it, or correct its address" if context.recipe.promote.tracking_uri else restart
        message = f"{redacted(uri)} does not answer: {error_line(error)}"
        yield Finding("MLflow", "warn", message, f"{hint}; promotions work without it")


def _server(uri: str) -> Finding:
    environment = {
        "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(int(TIMEOUT_S)),
    }  # fmt: skip
    for variable, value in environment.items():  # read when it is imported
        os.environ.setdefault(variable, value)
    from mlflow import MlflowClient

    with warnings.catch_warnings():  # importing it resets the filters
        warnings.simplefilter("ignore")
        versions = MlflowClient(tracking_uri=uri, registry_uri=uri).search_model_versions(max_results=1000)
    return Finding("MLflow", "ok", f"{redacted(uri)} answers: {len(versions)} model versions")


def _database(uri: str) -> Finding:
    """Read with SQL: MLflow's own client would create missing tables, and migrate those of an older version."""
    import sqlalchemy

    engine = _engine(uri)
    if engine is None:
        return Finding("MLflow", "ok", NONE_YET)
    with engine.connect() as connection:
        if not sqlalchemy.inspect(connection).has_table("alembic_version"):
            return Finding("MLflow", "ok", f"{redacted(uri)} answers: no tables yet; the first promotion creates them")
        revision = connection.scalar(sqlalchemy.text("SELECT version_num FROM alembic_version"))
        versions = connection.scalar(sqlalchemy.text("SELECT count(*) FROM model_versions"))
    engine.dispose()
    if revision != (expected := _newest_revision()):
        hint = (
            "use the MLflow of constraints.lock, or make a backup and `mlflow db upgrade`; promotions work without it"
        )
        message = f"{redacted(uri)} has the tables of another MLflow (revision {revision}, expected {expected})"
        return Finding("MLflow", "warn", message, hint)
    return Finding("MLflow", "ok", f"{redacted(uri)} answers: {versions} model versions")


def _engine(uri: str) -> Engine | None:
    """A connection that is read; None for a file that does not exist, which connecting would create."""
    import sqlalchemy
    from sqlalchemy.pool import NullPool

    url = sqlalchemy.make_url(uri)
    if url.get_backend_name() != "sqlite":
        return sqlalchemy.create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": int(TIMEOUT_S)})
    path = Path(url.database or "")
    if not path.is_file():
        return None
    return sqlalchemy.create_engine(
        url, poolclass=NullPool, creator=lambda: sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    )


def _newest_revision() -> str | None:
    """The revision of the tables that the installed MLflow reads and writes."""
    from alembic.script import ScriptDirectory

    module = importlib.util.find_spec("mlflow")
    assert module is not None
    assert module.origin
    return ScriptDirectory(str(Path(module.origin).parent / "store" / "db_migrations")).get_current_head()
