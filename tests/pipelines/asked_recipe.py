"""A recipe of the tests' own: answers to questions, with a tiny random encoder, in under a minute."""

from __future__ import annotations

import json
from pathlib import Path

from pipelines.recipes import Recipe, change, search
from tests.components.asked_world import items, queries


def answers(path: str) -> Recipe:
    """Any BEIR folder, the encoder trained from nothing, with abstention."""
    return change(
        search(path),
        [
            "name=answers", "material=[]", "finetune.encoder=tiny", "finetune.encoder_sha256=null",
            "finetune.max_tokens=16", "finetune.pair_tokens=24", "finetune.vector_size=24",
            "finetune.soft_candidates=12", "finetune.encoder_learning_rate=1e-3", "finetune.rankings_depth=20",
            "distill.train_encoder=true", "distill.encoder_learning_rate=1e-3", "distill.epochs=4",
            "distill.calibrate=open", "distill.candidates_per_source=20", "distill.calibration_folds=3",
            "evaluate.top_k=20", "evaluate.ks=[1,5,10]", "evaluate.latency_samples=10",
            "evaluate.bootstrap_samples=200", "decide.resamples=200", "export.catalogue=answers",
            "export.recipe=answers", "export.parity_samples=16", "export.int8=false", "export.fp16=false",
            "validate.profile_name=answers",
        ],
    )  # fmt: skip


def write_beir(folder: Path) -> Path:
    """The asked world as a BEIR folder, split into train and test."""
    (folder / "qrels").mkdir(parents=True)
    corpus = [{"_id": item["item_id"], "title": item["title"], "text": ""} for item in items()]
    requested = [{"_id": query["query_id"], "text": query["text"]} for query in queries()]
    for name, rows in (("corpus", corpus), ("queries", requested)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for split, mine in (("train", lambda n: n % 4), ("test", lambda n: not n % 4)):
        lines = [f"{q['_id']}\t{q['_id'].partition(':')[0]}\t1" for n, q in enumerate(requested) if mine(n + n // 4)]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]) + "\n")
    return folder
