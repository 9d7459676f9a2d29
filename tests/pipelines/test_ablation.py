"""Ablations: which parts apply, what a cell changes, and the table of what has run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from pipelines.ablation import table as tables
from pipelines.ablation.cells import BASE, RESULT, Ablation, Cell, CellResult, all_cells
from pipelines.ablation.changes import randomize_weights, shuffle_words
from pipelines.ablation.parts import Part, chosen_parts, parts
from pipelines.overrides import change
from pipelines.recipes import named
from rankline.errors import UsageError
from rankline.io.artifacts import declared_digest, verify_artifact, write_digests
from rankline.io.files import write_json
from tests.cli.in_process import rankline, refused
from tests.conftest import SmokeRun

REQUESTS = 60


def by_name(*settings: str, recipe: str = "smoke") -> dict[str, Part]:
    chosen = named(recipe, settings)
    return {part.name: part for part in parts(chosen, Path("encoder"))}


def test_a_part_that_the_recipe_has_is_taken_away_and_one_that_it_has_not_is_added() -> None:
    plain = by_name()
    assert (plain["joint_training"].is_on, plain["lora"].is_on, plain["crop"].is_on) == (False, False, False)
    assert plain["crop"].settings == ("finetune.crop_chance=0.5",)
    other = by_name("finetune.train_encoder=true", "finetune.peft=lora", "finetune.crop_chance=0.2")
    assert (other["joint_training"].is_on, other["lora"].is_on, other["crop"].is_on) == (True, True, True)
    assert other["joint_training"].settings == ("finetune.train_encoder=false",)
    assert other["lora"].settings == ("finetune.peft=none",)
    for part in (*plain.values(), *other.values()):  # every setting is one
        change(named("smoke"), part.settings)


def test_parts_that_do_not_apply_say_why() -> None:
    assert by_name()["pretraining"].not_applicable == "the recipe's encoder begins with random weights"
    assert (
        "not a folder" in by_name("finetune.encoder=hub:some/model", recipe="movielens")["pretraining"].not_applicable
    )
    assert not by_name(recipe="movielens")["pretraining"].not_applicable
    silent = by_name("distill.soft_weight=0", "distill.scorer_soft_weight=0")
    assert silent["teacher"].not_applicable
    assert by_name()["sources"].not_applicable
    cells = all_cells([by_name()["pretraining"], by_name()["words"]], 2)
    assert [cell.name for cell in cells] == ["recipe-0", "words-0", "recipe-1", "words-1"]


def test_an_unknown_part_is_refused() -> None:
    every = list(by_name().values())
    assert chosen_parts(every, []) == every
    assert [part.name for part in chosen_parts(every, ["teacher", "teacher"])] == ["teacher"]
    with pytest.raises(UsageError, match="no part 'letters'"):
        chosen_parts(every, ["letters"])


def test_words_are_shuffled_among_the_items_and_the_original_stays(tmp_path: Path) -> None:
    ids, titles = [f"i{n}" for n in range(50)], [f"title {n}" for n in range(50)]
    (tmp_path / "features").mkdir()
    items = pa.table({"item_id": ids, "title": titles, "price": list(range(50))})
    parquet.write_table(items, tmp_path / "features" / "items.parquet")
    (tmp_path / "features" / "summary.json").write_text("{}")
    write_digests(tmp_path / "features")
    before = declared_digest(tmp_path / "features")
    shuffled = shuffle_words(tmp_path / "features", tmp_path / "shuffled", seed=0)
    assert verify_artifact(shuffled) != before == verify_artifact(tmp_path / "features")
    actual = parquet.read_table(shuffled / "items.parquet")
    assert actual["item_id"].to_pylist() == ids
    assert actual["price"].to_pylist() == list(range(50))
    assert sorted(actual["title"].to_pylist()) == sorted(titles)
    assert actual["title"].to_pylist() != titles
    assert parquet.read_table(tmp_path / "features" / "items.parquet")["title"].to_pylist() == titles


@pytest.mark.integration
def test_random_weights_have_the_shapes_of_the_encoder_and_another_seed_others(smoke: SmokeRun, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    encoder = smoke.artifact("finetune", "teacher") / "encoder"
    first, again, other = (
        load_file(randomize_weights(encoder, tmp_path / name, seed=seed) / "model.safetensors")
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    trained = load_file(encoder / "model.safetensors")
    assert {name: value.shape for name, value in first.items()} == {name: v.shape for name, v in trained.items()}
    name = next(name for name in first if name.endswith("word_embeddings.weight"))
    assert np.array_equal(first[name], again[name])
    assert not np.array_equal(first[name], other[name])
    assert (tmp_path / "first" / "tokenizer.json").read_text() == (encoder / "tokenizer.json").read_text()


def ran(ablation: Ablation, cell: Cell, scores: Any) -> None:
    """A cell that has run, with these scores of its requests, two for each user."""
    folder = ablation.cell_folder(cell)
    folder.mkdir(parents=True)
    ids = [f"r{n:03}" for n in range(REQUESTS)]
    table = pa.table({"request_id": ids, "system": ["candidate"] * REQUESTS, "ndcg@10": scores})
    parquet.write_table(table, folder / "per_request.parquet")
    clusters = [f"user {n // 2}" for n in range(REQUESTS)]
    parquet.write_table(
        pa.table({"request_id": ids, "cluster": clusters, "at": [0.0] * REQUESTS}), folder / "requests.parquet"
    )
    write_json(folder / RESULT, CellResult(part=cell.part.name, seed=cell.seed, seconds=1.0).model_dump())


def test_the_table_has_what_each_part_adds_over_all_seeds(tmp_path: Path) -> None:
    ablation, rng = Ablation(named("smoke"), tmp_path), np.random.default_rng(0)
    words, crop = by_name()["words"], by_name()["crop"]
    for seed in (0, 1):
        base = rng.uniform(0.2, 0.8, REQUESTS)
        ran(ablation, Cell(BASE, seed), base)
        ran(ablation, Cell(words, seed), base - 0.1 + rng.normal(0, 0.01, REQUESTS))
        if not seed:  # the second cell has not run
            ran(ablation, Cell(crop, seed), base - 0.2)
    table = tables.make_table(ablation, [words, crop, by_name()["teacher"], by_name()["sources"]], 2)
    rows = {row.part: row for row in table.rows}
    assert rows["words"].finding == "helps"
    assert rows["words"].adds.mean == pytest.approx(0.1, abs=0.01)
    assert (rows["words"].adds.low or 0) > 0.09
    assert (rows["words"].seeds, rows["words"].requests) == ((0, 1), 2 * REQUESTS)
    # a part that the recipe has not: its cell has it
    assert (rows["crop"].finding, rows["crop"].seeds) == ("harms", (0,))
    assert rows["crop"].adds.mean == pytest.approx(-0.2)
    assert rows["crop"].with_part == pytest.approx((rows["crop"].without_part or 0) - 0.2)
    assert (rows["teacher"].finding, rows["sources"].finding) == ("not run", "does not apply")
    tables.write_table(ablation.folder, table)
    assert json.loads((ablation.folder / tables.JSON).read_text())["rows"][0]["finding"] == "helps"
    assert "| words | yes |" in (ablation.folder / tables.MARKDOWN).read_text()
    page = (ablation.folder / tables.PAGE).read_text()
    assert "<svg" in page
    assert "no setting switches a source off" in page


def test_noise_proves_nothing(tmp_path: Path) -> None:
    ablation, rng = Ablation(named("smoke"), tmp_path), np.random.default_rng(0)
    words = by_name()["words"]
    ran(ablation, Cell(BASE, 0), rng.uniform(0, 1, REQUESTS))
    ran(ablation, Cell(words, 0), rng.uniform(0, 1, REQUESTS))
    (row,) = tables.make_table(ablation, [words], 1).rows
    assert row.finding == "not proven"


def test_other_settings_are_another_ablation(tmp_path: Path) -> None:
    folders = {Ablation(named("smoke", settings), tmp_path).folder for settings in ([], ["finetune.epochs=1"])}
    assert len(folders) == 2


def test_the_plan_runs_nothing_and_no_time_leaves_all_cells(tmp_path: Path) -> None:
    shown = rankline("ablate", "smoke", "--plan", "--seeds", 1, "-w", tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "words-0: would run; titles and texts are shuffled among the items" in shown.stdout
    assert "pretraining does not apply: the recipe's encoder begins with random weights" in shown.stdout
    assert not list(tmp_path.iterdir())
    assert "no part 'letters'" in refused("ablate", "smoke", "--part", "letters", "-w", tmp_path, code=2)


@pytest.mark.slow
def test_an_ablation_of_the_smallest_recipe(smoke: SmokeRun, tmp_path: Path) -> None:
    """Two parts, one seed: the run's own steps are reused, nothing is registered, and finished cells are kept."""
    workspace = smoke.copy(tmp_path / "workspace")
    events = sorted(path.name for path in (workspace / "repository" / "events").iterdir())
    arguments = ("ablate", "smoke", "--part", "words", "--part", "teacher", "--seeds", 1, "-w", workspace)
    done = rankline(*arguments)
    assert done.returncode == 0, done.stderr
    ablation = Ablation(named("smoke"), workspace)
    rows = {row["part"]: row for row in json.loads((ablation.folder / tables.JSON).read_text())["rows"]}
    assert rows["words"]["requests"] == rows["teacher"]["requests"] > 0
    assert not list(ablation.folder.rglob("work"))
    assert sorted(path.name for path in (workspace / "repository" / "events").iterdir()) == events
    again = rankline(*arguments)
    assert "cell 1" not in again.stderr
    assert again.stdout == done.stdout
