"""Compares served logits with those of torch, for at least 10,000 requests with the same candidates."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

TIE = 1e-4


def main() -> None:
    """Replay snapshot requests of every split with fixed candidates and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspace", type=Path, default=Path(".rankline"))
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument(
        "--candidates", type=int, default=100, help="per request, drawn at random from the unseen items"
    )
    arguments = parser.parse_args()
    workspace = arguments.workspace.resolve()

    import numpy as np

    from rankline.runtime.server_process import serving

    differences, same = [], []
    bundle, requests = torch_logits(workspace, arguments.requests, arguments.candidates)
    with serving(
        bundle,
        folder=workspace / "parity",
        precision="fp32",
        start_timeout_s=120,
        request_timeout_s=60,
        connections=2,
    ) as server:
        for (_, _, expected), served in zip(requests, served_logits(server, requests)):
            differences.append(float(np.abs(served - expected).max()))
            same.append(same_top(served, expected))
    print("| requests | candidates | largest difference | same top 10 (ties within 1e-4 aside) |")
    print("| --- | --- | --- | --- |")
    print(f"| {len(same)} | {arguments.candidates} | {max(differences):.2e} | {np.mean(same):.4%} |")


def torch_logits(workspace: Path, count: int, candidates: int) -> tuple[Path, list[tuple[Any, list[str], Any]]]:
    """(bundle, [(snapshot request, candidates, torch's logits of the first head)])."""
    import numpy as np

    from benchmarks.quality import newest_output
    from components.distill import scorer
    from components.distill.candidate_table import CandidateDrawer
    from components.export.student import Student
    from rankline.model import bundle as bundles
    from rankline.model.scoring import Catalogue
    from rankline.runtime.progress import Progress

    student = Student.load(newest_output(workspace, "distill", "student"))
    folder = newest_output(workspace, "export", "bundle")
    bundle = bundles.open_bundle(folder)
    onnx, _ = bundles.read_catalogue(bundle, "fp32")
    # item vectors computed by torch: nothing of ONNX Runtime may enter its reference
    text_IT = np.load(newest_output(workspace, "distill", "student") / "text_vectors.npy")
    weight, bias = (part.detach().numpy() for part in (student.text.project.weight, student.text.project.bias))
    vectors_ID = text_IT @ weight.T + bias + student.non_text_ID
    catalogue = Catalogue(**{**vars(onnx), "vectors_ID": vectors_ID.astype(np.float32)})
    rng = np.random.default_rng(0)
    requests, given = [], []
    for request in replayed_requests(newest_output(workspace, "featurize", "features"), count):
        unseen = np.setdiff1d(np.arange(len(catalogue.item_ids)), catalogue.rows(request.state.seen))
        requests.append(request)
        given.append(np.sort(rng.choice(unseen, min(candidates, len(unseen)), replace=False)))
    names = bundle.manifest.features
    drawer = CandidateDrawer(student.tower, catalogue, bundle.candidate_settings, names, {})
    table = drawer.draw(requests, progress=Progress(), fixed_candidates=given)
    logits = scorer.logits(table, student.scorer, catalogue)
    return folder, [
        (request, [catalogue.item_ids[row] for row in rows], scored[:, 0])
        for request, rows, scored in zip(requests, given, logits)
    ]


def replayed_requests(features: Path, count: int) -> Iterator[Any]:
    """Snapshot requests: all of test and valid, then of train, until there are enough."""
    from rankline.evaluation import snapshot_requests

    remaining = count
    for split in ("test", "valid", "train"):
        for request in snapshot_requests.read_snapshot_requests(features, split):
            if not remaining:
                return
            remaining -= 1
            yield request
    if remaining:
        raise SystemExit(f"only {count - remaining} requests; set featurize.train_requests_per_user higher")


def served_logits(server: Any, requests: list[tuple[Any, list[str], Any]]) -> Iterator[Any]:
    """The served logits of each request, in the order of its candidates."""
    import numpy as np
    import orjson

    with ThreadPoolExecutor(2) as pool:

        def ask(question: tuple[Any, list[str], Any]) -> Any:
            request, candidates, _ = question
            body = orjson.dumps({"candidates": candidates, "frozen": request.state.model_dump()})
            answer = server.post("/v1/rank", body)
            logits = {item["item_id"]: item["logits"]["click"] for item in answer["items"]}
            return np.array([logits[item] for item in candidates])

        yield from pool.map(ask, requests)


def same_top(served: Any, expected: Any, k: int = 10) -> bool:
    """Whether both have the same top items; items within 1e-4 of the tenth are ties."""
    import numpy as np

    top = np.argsort(-served, kind="stable")[:k]
    tenth = np.sort(expected)[::-1][min(k, len(expected)) - 1]
    return bool((expected[top] >= tenth - TIE).all())


if __name__ == "__main__":
    main()
