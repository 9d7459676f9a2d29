"""Recipes: every setting has a description, each can be changed, and one that does not exist is refused."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from pipelines.recipe import (
    SECTIONS,
    SOURCE_PLACEHOLDER,
    WORKSPACE_PLACEHOLDER,
    as_dict,
    list_settings,
    run_context,
    run_parameters,
    step_settings,
)
from pipelines.recipes import RECIPES, change, load_for_display, named, needs_source
from rankline.errors import UsageError
from rankline.io import sources


def refusal(name: str, *settings: str) -> UsageError:
    with pytest.raises(UsageError) as refused:
        named(name, settings)
    return refused.value


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_no_setting_is_without_a_sentence(name: str) -> None:
    result = list(list_settings(load_for_display(name)))
    assert [option for option, _, sentence in result if len(sentence) < 5] == []
    assert len(result) > 100
    assert load_for_display(name).name == name
    assert load_for_display(name).description


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_the_settings_are_all_there_is(name: str) -> None:
    recipe = load_for_display(name)
    plain = as_dict(recipe)
    assert len(list(list_settings(recipe))) > 100
    for option, value, _ in list_settings(recipe):
        location = plain
        for part in option.split("."):
            location = location[part]
        assert json.loads(json.dumps(value, default=_plain)) == json.loads(json.dumps(location, default=_plain)), option


def _plain(value: Any) -> Any:
    """A value that JSON does not know: a time, or a set."""
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else list(value)


@pytest.mark.parametrize(
    ("setting", "section", "option", "value"),
    [
        ("finetune.epochs=3", "finetune", "epochs", 3),
        ("finetune.learning_rate=1e-4", "finetune", "learning_rate", 1e-4),
        ("finetune.train_encoder=true", "finetune", "train_encoder", True),
        ("ingest.source=/data/shop", "ingest", "source", "/data/shop"),
        ('decide.must_beat=["popularity"]', "decide", "must_beat", ["popularity"]),
        ("ingest.name=null", "ingest", "name", None),
        ('ingest.name="2024"', "ingest", "name", "2024"),
        ('decide.floors={"ndcg@10": 0.2}', "decide", "floors", {"ndcg@10": 0.2}),
        ("summary.gpus.finetune=2", "summary", "gpus", {"finetune": 2}),
    ],
)
def test_one_setting_is_changed_and_nothing_else(setting: str, section: str, option: str, value: object) -> None:
    before, after = as_dict(named("smoke")), as_dict(named("smoke", [setting]))
    assert after[section][option] == value
    after[section][option] = before[section][option]
    assert after == before


def test_an_open_mapping_takes_a_key_of_its_own() -> None:
    changed = named("movielens", ["decide.floors.hr@10=0.3", "cluster.secrets.TOKEN=store/token"])
    assert changed.decide.floors["hr@10"] == 0.3
    assert "ndcg@10" in changed.decide.floors
    assert changed.cluster.secrets == {"TOKEN": "store/token"}


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("promote.experiment=2026", "2026"),
        ("promote.experiment=1e3", "1e3"),
        ("promote.experiment=2.50", "2.50"),
        ("promote.experiment=true", "true"),
        ('promote.experiment="7"', "7"),
        ("cluster.train.node_selector.pool=7", "7"),
        ("cluster.train.node_selector.spot=true", "true"),
        ("export.recipe=12345678901234567890", "12345678901234567890"),
    ],
)
def test_a_number_for_a_text_is_that_text(setting: str, value: str) -> None:
    path = setting.partition("=")[0].split(".")
    changed: Any = as_dict(named("smoke", ["finetune.epochs=3", setting]))
    for part in path:
        changed = changed[part]
    assert changed == value
    assert named("smoke", ["finetune.epochs=3", setting]).finetune.epochs == 3


def test_a_number_for_a_text_is_still_checked() -> None:
    assert "match" in refusal("smoke", "name=7").expected
    assert "finetune.epochs" in refusal("smoke", "promote.experiment=7", "finetune.epochs=0").message
    assert "valid string" in refusal("smoke", "promote.experiment=null").expected


@pytest.mark.parametrize(
    ("setting", "option", "hint"),
    [
        ("finetune.epoch=3", "finetune.epoch", "did you mean 'epochs'?"),
        ("finetun.epochs=3", "finetun", "did you mean 'finetune'?"),
        ("ingest.columns.itm=x", "ingest.columns.itm", "did you mean"),
        ("finetune.epochs.more=3", "finetune.epochs.more", "rankline recipes show"),
        ("purple=1", "purple", "rankline recipes show"),
    ],
)
def test_a_misspelt_setting_is_refused_with_the_nearest_one(setting: str, option: str, hint: str) -> None:
    result = refusal("smoke", setting)
    assert f"no setting {option!r}" in result.message
    assert result.found == setting
    assert hint in result.hint
    assert result.exit_code == 2


@pytest.mark.parametrize(
    ("setting", "option", "expected"),
    [
        ("finetune.epochs=0", "finetune.epochs", "greater than or equal to 1"),
        ("finetune.epochs=many", "finetune.epochs", "valid integer"),
        ("finetune.epochs=1.5", "finetune.epochs", "valid integer"),
        ("finetune.device=tpu", "finetune.device", "'auto', 'cpu' or 'cuda'"),
        ("finetune=3", "finetune", "dict"),
        ("name=My Shop", "name", "match"),
        ("cluster.train.gpus=-1", "cluster.train.gpus", "greater than or equal to 0"),
        ("decide.floors=high", "decide.floors", "dict"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_its_bounds(setting: str, option: str, expected: str) -> None:
    result = refusal("smoke", setting)
    assert option in result.message
    assert expected in result.expected
    assert result.found


@pytest.mark.parametrize(
    ("order", "message", "hint"),
    [
        ("clik", "something unknown: clik", "ingest.labels"),
        ("click*price", "not a number: price", "ingest.columns.price"),
        ("click*title", "not a number: title", "item_numbers"),
        ("click**2", "not an arithmetic expression", "distill.order"),
    ],
)
def test_an_order_of_answers_is_refused_before_anything_runs(order: str, message: str, hint: str) -> None:
    error = refusal("smoke", f"distill.order={order}")
    assert message in str(error)
    assert hint in error.hint


def test_an_order_of_answers_reads_declared_labels_and_numbers() -> None:
    settings = [
        "distill.order=0.2*tap + buy*price*margin", 'ingest.labels={"tap": {}, "buy": {"after": "tap"}}',
        'ingest.columns.labels={"tap": "tapped", "buy": "bought"}',
        "ingest.columns.price=cost",
        'ingest.columns.item_numbers=["margin"]',
    ]  # fmt: skip
    assert named("smoke", settings).distill.order == "0.2*tap + buy*price*margin"


def test_a_gate_may_name_any_metric_of_a_head() -> None:
    recipe = named("smoke", ["decide.ceilings.click.ece=0.02"])
    assert recipe.decide.ceilings == {"click.ece": 0.02}


def test_a_setting_without_a_value_is_refused() -> None:
    assert "has no value" in refusal("smoke", "finetune.epochs").message


def test_an_unknown_recipe_is_refused_with_the_nearest_one() -> None:
    result = refusal("movielen")
    assert "no recipe named 'movielen'" in result.message
    assert "did you mean 'movielens'?" in result.hint
    assert "smoke" in result.expected


def test_a_recipe_of_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lies in the folder one stands in, as `python -m` would find it."""
    (tmp_path / "shopkeeper.py").write_text(
        "import dataclasses\n"
        "from pipelines.recipes import smoke\n"
        "def mine():\n    return dataclasses.replace(smoke(), name='mine')\n"
        "def wrong():\n    return 3\n"
        "def stumbles():\n    return 1 // 0\n"
        "def unbounded():\n    return dataclasses.replace(smoke(), name='No Name')\n"
    )
    (tmp_path / "unreadable.py").write_text("def (:\n")
    monkeypatch.chdir(tmp_path)
    assert named("shopkeeper:mine", ["finetune.epochs=2"]).finetune.epochs == 2
    for name, matches in [
        ("shopkeeper:yours", "no attribute 'yours'"),
        ("nowhere:mine", "No module named 'nowhere'"),
        ("shopkeeper:wrong", "it returned int"),
        ("shopkeeper:stumbles", "ZeroDivisionError"),
        ("shopkeeper:unbounded", "name"),
        ("unreadable:mine", "SyntaxError"),
        ("shopkeeper:", "attribute"),
        (":mine", "ValueError"),
    ]:
        result = refusal(name)
        assert f"recipe {name} cannot be loaded" in result.message
        assert matches in result.found, name
        assert "PYTHONPATH" in result.hint


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_it_survives_json_and_the_components_get_their_folder(name: str) -> None:
    recipe = load_for_display(name)
    assert change(recipe, []) == recipe
    placed = step_settings(recipe, "/somewhere")
    assert set(placed) == set(SECTIONS)
    assert WORKSPACE_PLACEHOLDER not in json.dumps(placed)
    assert placed["ingest"]["source"].startswith(SOURCE_PLACEHOLDER if needs_source(name) else "/somewhere/material/")
    assert "null" not in json.dumps(placed).replace("__null__", "")


@pytest.mark.parametrize(
    "setting",
    [
        "cluster.secrets.TOKEN=nokey",
        "cluster.secrets.TOKEN=/key",
        "cluster.train.memory=lots",
        "cluster.train.cpu=many",
    ],
)
def test_a_place_that_a_cluster_would_not_understand_is_refused(setting: str) -> None:
    assert "the recipe refuses cluster" in str(refusal("movielens", setting))


@pytest.mark.parametrize("workspace", ["/w/o'q", '/w/x"q', "/w/back\\slash"])
def test_a_workspace_may_have_any_name(workspace: str) -> None:
    assert step_settings(named("smoke"), workspace)["ingest"]["source"] == f"{workspace}/material/smoke"


@pytest.mark.parametrize("name", ["search", "labels", "interactions"])
def test_a_recipe_for_anybodys_data_asks_for_it(name: str) -> None:
    result = refusal(name)
    assert result.message == f"recipe {name} needs data"
    assert "--source" in result.expected
    assert named(name, source="/data/mine").ingest.source == "/data/mine"


def test_a_recipe_that_brings_its_data_takes_no_other() -> None:
    with pytest.raises(UsageError, match="takes no --source"):
        named("movielens", source="/data/mine")
    with pytest.raises(UsageError, match="takes no --map"):
        named("search", source="/data/mine", map="map.toml")


def test_a_map_says_how_a_log_is_read(tmp_path: Path) -> None:
    path = tmp_path / "map.toml"
    path.write_text(
        'items_from_events = true\n[tables]\nevents = "log/*.parquet"\n'
        '[columns]\nuser_id = "who"\nitem_id = "what"\ntimestamp = "when"\ntimestamp_unit = "ms"\n'
    )
    result = named("interactions", source="/data", map=str(path)).ingest
    assert (result.source, result.tables.events, result.columns.user_id) == ("/data", "log/*.parquet", "who")
    assert result.columns.title == ""  # MovieLens' columns are not taken for anybody's


@pytest.mark.parametrize(
    ("given", "source", "events"),
    [
        ("/data/lab.csv", "/data", "lab.csv"),
        ("lab.jsonl.gz", ".", "lab.jsonl.gz"),
        ("s3://bucket/lab.parquet", "s3://bucket", "lab.parquet"),
        ("/lab.CSV", "/", "lab.CSV"),
    ],
)
@pytest.mark.parametrize("name", ["labels", "interactions"])
def test_a_file_is_its_folder_and_the_events_in_it(name: str, given: str, source: str, events: str) -> None:
    result = named(name, source=given).ingest
    assert (result.source, result.tables.events, result.tables.items) == (source, events, "")
    assert result.items_from_events


def test_a_file_of_labels_is_read(tmp_path: Path) -> None:
    (tmp_path / "lab.csv").write_text("text,label\nfine,good\n")
    (tmp_path / "other.csv").write_text("nothing of ours\n")
    requested = named("labels", source=str(tmp_path / "lab.csv")).ingest
    assert [file.path for file in sources.find_files(requested)["events"]] == [str(tmp_path / "lab.csv")]
    # a folder stays one, whatever its name
    (tmp_path / "set.csv").mkdir()
    assert named("labels", source=str(tmp_path / "set.csv")).ingest.tables.events == "*.csv"
    assert named("labels", source=str(tmp_path / "csv")).ingest.tables.events == "*.csv"


def test_a_map_names_the_columns_of_labels_and_the_tables_beside_a_file(tmp_path: Path) -> None:
    path = tmp_path / "map.toml"
    path.write_text('[columns]\nitem_id = "sentiment"\n[files]\nencoding = "gb18030"\n')
    result = named("labels", source="/data", map=str(path)).ingest
    assert (result.columns.item_id, result.columns.query_text, result.columns.user_id) == ("sentiment", "text", "")
    assert (result.tables.events, result.items_from_events, result.files.encoding) == ("*.csv", True, "gb18030")
    path.write_text('[tables]\nevents = "log/*"\nitems = "items.csv"\n')
    result = named("interactions", source="/data/log.csv", map=str(path)).ingest
    assert (result.source, result.tables.events, result.tables.items) == ("/data", "log.csv", "items.csv")
    assert not result.items_from_events
    path.write_text('format = "sql"\n[tables]\nevents = "log"\nitems = "items"\n')
    assert named("interactions", source="/data/shop.json", map=str(path)).ingest.source == "/data/shop.json"


POLICY = """
margin = 0.05
floors = { "hr@10" = 0.2 }
[[gates]]
kind = "ceiling"
metric = "latency.p99_ms"
at_most = 40
"""


def test_a_policy_file_replaces_the_settings_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text(POLICY)
    before = named("movielens").decide
    decide = named("movielens", [f"decide=@{tmp_path / 'policy.toml'}", "decide.margin=0.06"]).decide
    assert (decide.margin, decide.floors, decide.gates[0].kind) == (0.06, {"hr@10": 0.2}, "ceiling")
    assert (decide.must_beat, decide.min_requests) == (before.must_beat, before.min_requests)
    (tmp_path / "policy.json").write_text('{"margin": 0.07}')
    assert named("movielens", [f"decide=@{tmp_path / 'policy.json'}"]).decide.margin == 0.07


def test_gates_survive_json_as_the_components_get_them(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text(POLICY)
    recipe = named("movielens", [f"decide=@{tmp_path / 'policy.toml'}"])
    sent = json.loads(json.dumps(step_settings(recipe, "/w")["decide"]), parse_int=float)  # as Kubeflow does
    assert type(recipe.decide)(**sent) == recipe.decide


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "cannot be read"),
        ("margin = ", "cannot be read"),
        ("margn = 0.1", "margn"),
        ('[[gates]]\nkind = "roof"\nmetric = "x"', "gates"),
        ('[[gates]]\nkind = "floor"\nmetric = "x"', "at_least"),
        ('[[gates]]\nkind = "floor"\nmetric = "x"\nat_least = 1\n' * 2, "two gates are named"),
    ],
)
def test_a_policy_file_that_is_none_is_refused(tmp_path: Path, text: str | None, problem: str) -> None:
    if text is not None:
        (tmp_path / "policy.toml").write_text(text)
    with pytest.raises(UsageError, match=problem):
        named("movielens", [f"decide=@{tmp_path / 'policy.toml'}"])


@pytest.mark.parametrize(
    ("name", "text", "matches"),
    [
        ("map.toml", "[columns", "cannot be read"),
        ("map.json", "{", "cannot be read"),
        ("map.toml", '[columns]\nusr_id = "who"\n', r"refuses \[columns\] usr_id"),
        ("map.toml", '[columns]\ntimestamp_unit = "weeks"\n', "weeks"),
    ],
)
def test_an_invalid_map_is_refused(tmp_path: Path, name: str, text: str, matches: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=matches):
        named("interactions", source="/data", map=str(tmp_path / name))
    with pytest.raises(UsageError, match="cannot be read"):
        named("interactions", source="/data", map=str(tmp_path / "absent.toml"))


MAP = """
[tables]
events = "log.csv"
[columns]
user_id = "u"
item_id = "i"
timestamp = "t"
"""


@pytest.mark.parametrize(
    ("more", "setting", "value", "hint"),
    [
        (
            'event_type = "kind"\n[columns.event_types]\nview = "Impression"\nclick = "click"\n[labels.click]\n',
            "[columns.event_types] view",
            "Impression",
            "did you mean 'impression'?",
        ),
        (
            '[columns.labels]\npurchase = "bought"\n[labels.purchase]\nafter = "clik"\n[labels.click]\n',
            "[labels] click",
            "",
            "",
        ),
        (
            '[columns.labels]\npurchase = "b"\nclick = "c"\n[labels.purchase]\nafter = "clik"\n[labels.click]\n',
            "[labels.purchase] after",
            "clik",
            "did you mean 'click'?",
        ),
        ('[columns.labels]\nliked = "l"\n', "[columns.labels] liked", "liked", ""),
        ('[columns.labels]\nliked = "l"\n[labels.liked]\nweight = -1\n', "labels", "liked -1", ""),
        ('event_type = "kind"\n', "[columns] event_types", "not set", ""),
    ],
)
def test_a_map_names_the_setting_it_refuses(tmp_path: Path, more: str, setting: str, value: str, hint: str) -> None:
    path = tmp_path / "map.toml"
    path.write_text(MAP + more)
    with pytest.raises(UsageError) as caught:
        named("interactions", source=str(tmp_path), map=str(path))
    error = caught.value
    assert (error.message, error.found, error.where) == (f"the map refuses {setting}", value, str(path))
    assert error.hint.startswith(hint)


def test_a_refused_setting_of_a_recipe_is_shown_by_the_name_that_loads_it() -> None:
    with pytest.raises(UsageError) as caught:
        named("pipelines.recipes:smoke", ["finetune.epochs=-1"])
    assert "rankline recipes show pipelines.recipes:smoke" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        named("smoke", ['ingest.labels={"click": {"after": "clik"}}', 'ingest.columns.labels={"click": "c"}'])
    assert caught.value.message == "the recipe refuses ingest.labels.click.after"
    assert caught.value.found == "clik"


# -- where events are shown ------------------------------------------------------------------------------------


def test_every_step_knows_where_events_are_shown(tmp_path: Path) -> None:
    assert not {"mlflow", "notify"} & run_parameters(named("smoke"), str(tmp_path)).keys()
    webhooks = '[{"url_variable": "HOOK_URL", "format": "slack", "events": ["pending"]}, {"url": "https://a.example"}]'
    settings = [f"notify.webhooks={webhooks}", "notify.email.host=mail.example", "notify.email.sender=a@b.example",
                'notify.email.recipients=["c@d.example"]', f"promote.tracking_uri=sqlite:///{WORKSPACE_PLACEHOLDER}/m.db",
                "promote.mirror_timeout_s=5"]  # fmt: skip
    recipe = named("smoke", settings)
    announcer = run_context(recipe, tmp_path).announcer
    assert announcer.notify == recipe.notify
    assert announcer.tracking == recipe.promote.tracking.model_copy(
        update={"tracking_uri": f"sqlite:///{tmp_path}/m.db"}
    )
    assert announcer.recipe == "smoke"
    # they change no step's settings but promote's, which no cache key holds
    assert {name for name in SECTIONS if getattr(recipe, name) != getattr(named("smoke"), name)} == {"promote"}


def test_a_secret_in_the_address_of_a_webhook_is_refused_and_not_repeated() -> None:
    error = refusal("smoke", 'notify.webhooks=[{"url": "https://me:s3cret@a.example"}]')
    assert "url_variable" in error.expected
    assert "s3cret" not in str(error)
