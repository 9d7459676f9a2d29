"""Times a large verdict, from the files of an evaluation to the last check: requests, systems, slices, resamples."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rankline.contracts import Manifest
    from rankline.evaluation.decision import PromotionPolicy
    from rankline.gates.state import AnchorState

GATED_SLICES = 20


def main() -> None:
    """Read and decide, for requests of single users and of users with five requests each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--systems", type=int, default=5)
    parser.add_argument("--resamples", type=int, default=10_000)
    arguments = parser.parse_args()

    import pyarrow.dataset  # imports are not what is timed
    import pyarrow.parquet  # noqa: F401
    import scipy.special  # noqa: F401

    from rankline.evaluation.decision import decide
    from rankline.evaluation.report import read_report
    from rankline.gates.evidence import read_evidence

    manifest, policy, state = situation(arguments.systems, arguments.resamples)
    print(
        "| requests | users | systems | comparisons | resamples | read, s | decide, s | together, s | of it processor |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for per_user in (1, 5):
        with tempfile.TemporaryDirectory() as folder:
            users = arguments.requests // per_user
            write_evaluation(Path(folder), users, per_user, arguments.systems)
            started, worked = time.perf_counter(), time.process_time()
            report, evidence = read_report(Path(folder)), read_evidence(Path(folder))
            read = time.perf_counter() - started
            verdict = decide(
                report, evidence, manifest, policy, champion_id="c" * 16, champion_manifest=manifest, state=state
            )
            seconds, worked = time.perf_counter() - started, time.process_time() - worked
        compared = sum(check.effect is not None for check in verdict.checks)
        size = f"{len(evidence.request_ids):,} | {users:,} | {arguments.systems} | {compared} | {arguments.resamples:,}"
        print(f"| {size} | {read:.2f} | {seconds - read:.2f} | {seconds:.2f} | {worked:.2f} |")


def situation(systems: int, resamples: int) -> tuple[Manifest, PromotionPolicy, AnchorState]:
    """The candidate's manifest, a policy with a gate on every slice, and the anchor."""
    from rankline.contracts import Manifest
    from rankline.evaluation.decision import PromotionPolicy
    from rankline.gates.state import AnchorState
    from rankline.model.scoring import feature_names

    manifest = Manifest(
        recipe="r", heads=["rating"], features=feature_names(), text=None, vector_size=8, max_history=10,
        covisit_decay=0.8, candidates_per_source=50, precisions={}, parity=[], data_digest="d", code_digest="c",
        train_end="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    policy = PromotionPolicy(
        must_beat=[f"baseline {n}" for n in range(systems - 3)],
        slice_drops={f"slice {n}": 0.1 for n in range(GATED_SLICES)},
        superior=True,
        resamples=resamples,
    )
    return manifest, policy, AnchorState(anchor="a" * 16)


def write_evaluation(folder: Path, users: int, per_user: int, systems: int) -> None:
    """The files that `evaluate` writes: ten metrics of every system, and slices of every size."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as parquet

    from rankline.evaluation.report import PER_REQUEST, REQUESTS, SLICES, Report, write_report

    rng, count = np.random.default_rng(0), users * per_user
    names = ["candidate", "champion", "anchor", *(f"baseline {n}" for n in range(systems - 3))]
    ids = [f"request-{n:08}" for n in rng.permutation(count)]
    ease_R = np.repeat(rng.random(users), per_user)
    metrics = ["ndcg@10", *(f"metric{n}@10" for n in range(9))]
    scores = {name: ease_R + rng.random(count) - 0.05 * n for n, name in enumerate(names)}
    tables = [pa.table({"request_id": ids, "system": [name] * count, **dict.fromkeys(metrics, own)})
              for name, own in scores.items()]  # fmt: skip
    parquet.write_table(pa.concat_tables(tables), folder / PER_REQUEST, compression="zstd")
    clusters = [f"user {n}" for n in np.repeat(np.arange(users), per_user)]
    parquet.write_table(
        pa.table({"request_id": ids, "cluster": clusters, "at": np.arange(count, dtype=float)}), folder / REQUESTS
    )
    members = [(each, f"slice {n}") for n in range(GATED_SLICES) for each in ids[:: n + 1]]
    parquet.write_table(pa.table(dict(zip(("request_id", "slice"), zip(*members)))), folder / SLICES)
    means = {name: {"metrics": {"ndcg@10": {"mean": float(own.mean())}}} for name, own in scores.items()}
    report = Report.model_validate({
        "model_id": "m" * 16, "recipe": "r", "run_id": "", "champion": "c" * 16, "anchor": "a" * 16, "requests": count,
        "systems": means,
    })  # fmt: skip
    write_report(folder, report)


if __name__ == "__main__":
    main()
