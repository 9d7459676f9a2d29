"""Candidates in MLflow on Postgres: directly, through its server, and when that goes away half-way."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic import ValidationError

from components.promote.config import PromoteConfig
from rankline.mirror.config import TrackingConfig
from rankline.mirror.follow import follow
from tests.rankline.mirror.conftest import Gallery
from tests.servers.postgres import DATABASE, PASSWORD, USER, Postgres
from tests.servers.proxy import DROP, PASS, flaky


@pytest.mark.slow
def test_a_candidate_is_shown_by_postgres_and_its_password_appears_nowhere(
    gallery: Gallery, postgres: Postgres
) -> None:
    gallery.config = TrackingConfig(tracking_uri=postgres.sqlalchemy_url)
    model_id = gallery.candidate("a", "promoted")
    assert gallery.sync(dry_run=True).changes
    result = follow(gallery.models, [model_id], config=gallery.config, workspace=gallery.workspace)
    assert (result["version"], result["uri"]) == (1, postgres.sqlalchemy_url)
    assert gallery.aliases == {"champion": model_id}
    assert gallery.sync().changes == []
    run = gallery.client.get_run(gallery.version(model_id).run_id)
    assert run.info.artifact_uri.startswith(gallery.workspace.as_uri())
    assert PASSWORD not in str(result).replace(str(postgres.port), "")


@pytest.mark.slow  # starting MLflow's server takes long
@pytest.mark.parametrize("requests", [1, 12])
def test_a_server_that_goes_away_half_way_loses_nothing(gallery: Gallery, mlflow_server: int, requests: int) -> None:
    plan: Callable[[int], str] = lambda n: PASS if n < requests else DROP  # noqa: E731
    model_id = gallery.candidate("a", "promoted")
    waiting = gallery.candidate("b", "pending")
    with flaky(mlflow_server, lambda n: plan(n)) as network:
        gallery.config = TrackingConfig(
            tracking_uri=f"http://127.0.0.1:{network.port}",
            registered_model=f"model{requests}",  # the tests share a database
            experiment=f"experiment{requests}",
        )
        result = follow(gallery.models, [model_id], config=gallery.config, workspace=gallery.workspace)
        assert "`rankline sync` mends it later" in result["error"]
        plan = lambda n: PASS  # noqa: E731
        assert gallery.sync().versions == {model_id: 1, waiting: 2}
        assert gallery.sync().changes == []
        assert gallery.aliases == {"champion": model_id, "candidate": waiting}
        version = gallery.version(model_id)
        assert version.tags["bundle"].endswith(f"/bundles/{model_id}")
        run = gallery.client.get_run(version.run_id)
        assert (run.info.status, len(gallery.client.search_runs([run.info.experiment_id]))) == ("FINISHED", 2)
        pages = {each.path for each in gallery.client.list_artifacts(version.run_id)}
        assert pages == {"report.json", "verdict.md"}


@pytest.mark.parametrize("uri", [f"postgresql+psycopg://{USER}:secret@host/{DATABASE}", "postgresql://h/d?password=x"])
def test_a_password_in_the_recipe_is_refused(uri: str) -> None:
    with pytest.raises(ValidationError, match="a password is no setting"):
        PromoteConfig(tracking_uri=uri)
