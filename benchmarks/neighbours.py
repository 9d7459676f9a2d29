"""The nearest-neighbour index against exact search: recall, time and size."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Search with vectors of the history tower, among the bundle's item vectors and among many synthetic ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspace", type=Path, default=Path(".rankline"))
    parser.add_argument(
        "--synthetic", "--made-up", type=int, default=200_000, help="items near the real ones, for the HNSW index"
    )
    arguments = parser.parse_args()
    workspace = arguments.workspace.resolve()

    import faiss
    import numpy as np

    from benchmarks.quality import newest_output
    from rankline.model import bundle as bundles

    bundle = bundles.open_bundle(newest_output(workspace, "export", "bundle"))
    catalogue, _ = bundles.read_catalogue(bundle, "fp32")
    lefts = left_vectors(workspace, catalogue, bundle.candidate_settings.max_history)
    rng = np.random.default_rng(0)
    copies = rng.choice(len(catalogue.vectors_ID), arguments.synthetic)
    noise = 0.5 * catalogue.vectors_ID.std() * rng.standard_normal((arguments.synthetic, catalogue.vectors_ID.shape[1]))
    many = np.ascontiguousarray(catalogue.vectors_ID[copies] + noise, dtype=np.float32)
    print("| items | index | recall@100 | ms a request | build |")
    print("| --- | --- | --- | --- | --- |")
    shipped = faiss.read_index(str(bundle.folder / "catalogue" / "index.faiss"))
    row("in the bundle", shipped, catalogue.vectors_ID, lefts, 0.0)
    graph = faiss.IndexHNSWFlat(many.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction, graph.hnsw.efSearch = 256, 128
    started = time.perf_counter()
    graph.add(many)
    row("HNSW", graph, many, lefts, time.perf_counter() - started)


def left_vectors(workspace: Path, catalogue: Any, max_history: int) -> Any:
    """[R, D] the left vectors of the test's snapshot requests."""
    import numpy as np

    from benchmarks.quality import newest_output
    from components.distill.candidate_table import CandidateDrawer
    from components.export.student import Student
    from rankline.evaluation import snapshot_requests
    from rankline.model.scoring import CandidateSettings, feature_names

    tower = Student.load(newest_output(workspace, "distill", "student")).tower
    drawer = CandidateDrawer(tower, catalogue, CandidateSettings(0, 0.0, max_history), feature_names(), {})
    features = newest_output(workspace, "featurize", "features")
    requests = snapshot_requests.read_snapshot_requests(features, "test")
    return np.stack([drawer.left_vector(request) for request in requests])


def row(name: str, index: Any, vectors: Any, lefts: Any, build_s: float) -> None:
    """Print the recall of an index against exact search, and its speed."""
    import faiss
    import numpy as np

    exact = faiss.IndexFlatIP(vectors.shape[1])
    exact.add(vectors)
    truth = exact.search(lefts, 100)[1]
    started = time.perf_counter()
    results = np.stack([index.search(left[None], 100)[1][0] for left in lefts])
    each_ms = 1000 * (time.perf_counter() - started) / len(lefts)
    recall = np.mean([len(np.intersect1d(a, b)) / 100 for a, b in zip(results, truth)])
    print(f"| {len(vectors)} | {name} ({type(index).__name__}) | {recall:.4f} | {each_ms:.2f} | {build_s:.1f} s |")


if __name__ == "__main__":
    main()
