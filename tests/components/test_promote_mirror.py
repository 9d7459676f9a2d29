"""Promotions in MLflow on Postgres: directly, through its server, and when that goes away half-way."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from components.promote.config import PromoteConfig
from rankline.model.bundle import open_bundle
from tests.cli.in_process import rankline, refused
from tests.components.test_promote import Workshop, database, shop  # noqa: F401
from tests.servers.postgres import DATABASE, PASSWORD, USER, Postgres
from tests.servers.proxy import DROP, PASS, flaky


def promoted(shop: Workshop, name: str, *, champion: str = "", **config: Any) -> tuple[str, dict[str, Any]]:  # noqa: F811
    bundle, evaluation = shop.created(name, champion=champion)
    verdict, _ = shop.decide(bundle, evaluation)
    return open_bundle(bundle).model_id, shop.promote(bundle, evaluation, verdict, **config)


def client_of(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


@pytest.mark.slow
def test_a_promotion_is_mirrored_into_postgres_and_its_password_appears_nowhere(
    shop: Workshop,  # noqa: F811
    postgres: Postgres,
) -> None:
    model_id, result = promoted(shop, "a", tracking_uri=postgres.sqlalchemy_url)
    client = client_of(postgres.sqlalchemy_url)
    version = client.get_model_version_by_alias("rankline", "champion")
    assert version.tags["model_id"] == model_id
    assert client.get_run(version.run_id).info.artifact_uri.startswith(shop.workspace.as_uri())
    outcome = json.dumps(result) + "".join(e.model_dump_json() for e in shop.repository.history())
    assert PASSWORD not in outcome.replace(str(postgres.port), "")
    assert result["mlflow"]["uri"] == postgres.sqlalchemy_url


@pytest.mark.slow  # starting MLflow's server takes long
@pytest.mark.parametrize("requests", [1, 6])
def test_a_server_that_goes_away_half_way_loses_no_promotion(
    shop: Workshop,  # noqa: F811
    mlflow_server: int,
    tmp_path: Path,
    requests: int,
) -> None:
    outcome: Callable[[int], str] = lambda n: PASS if n < requests else DROP  # noqa: E731
    with flaky(mlflow_server, lambda n: outcome(n)) as network:
        uri = f"http://127.0.0.1:{network.port}"
        name = {"registered_model": f"model{requests}", "experiment": f"experiment{requests}"}
        model_id, result = promoted(shop, "a", tracking_uri=uri, **name)
        assert "`rankline mirror` adds it later" in result["mlflow"]["error"]
        assert shop.repository.champion() == model_id
        settings = [f"--set=promote.{k}={v}" for k, v in {"tracking_uri": uri, **name}.items()]
        assert "MLflow cannot be written" in refused(
            "mirror", "--recipe", "smoke", "-w", shop.workspace, *settings, code=1
        )
        outcome = lambda n: PASS  # noqa: E731
        for _ in range(2):  # twice is once
            done = rankline("mirror", "--recipe", "smoke", "-w", shop.workspace, *settings)
            assert done.returncode == 0, done.stderr
            assert f"model {model_id} is version 1" in done.stdout
    client = client_of(f"http://127.0.0.1:{mlflow_server}")
    version = client.get_model_version_by_alias(name["registered_model"], "champion")
    assert version.tags["model_id"] == model_id
    assert version.tags["bundle"].endswith(f"/bundles/{model_id}")
    experiment = client.get_experiment_by_name(name["experiment"])
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert [a.path for a in client.list_artifacts(run.info.run_id)] == ["verdict.md"]


def test_what_was_promoted_while_mlflow_was_down_is_shown_later(shop: Workshop) -> None:  # noqa: F811
    down = "http://127.0.0.1:1"
    first, result = promoted(shop, "a", tracking_uri=down)
    assert "`rankline mirror` adds it later" in result["mlflow"]["error"]
    second, _ = promoted(shop, "b", champion=first, tracking_uri=down)
    shop.repository.append("rolled_back", first, who="somebody", why="complaints")
    done = rankline("mirror", "--recipe", "smoke", "-w", shop.workspace, "--json")
    assert done.returncode == 0, done.stderr
    assert [each["model_id"] for each in json.loads(done.stdout)] == [first, second, first]
    version = client_of(f"sqlite:///{shop.workspace / 'mlflow.db'}").get_model_version_by_alias("rankline", "champion")
    assert version.tags["model_id"] == first  # who serves, as the events say


@pytest.mark.parametrize("uri", [f"postgresql+psycopg://{USER}:secret@host/{DATABASE}", "postgresql://h/d?password=x"])
def test_a_password_in_the_recipe_is_refused(uri: str) -> None:
    with pytest.raises(ValidationError, match="a password is no setting"):
        PromoteConfig(tracking_uri=uri)
