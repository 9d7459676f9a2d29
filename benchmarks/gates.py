"""Times the intervals of a large verdict: 100,000 requests, five systems, 10,000 resamples."""

from __future__ import annotations

import argparse
import time


def main() -> None:
    """Compare a candidate with four systems, for requests of single users and of users with five requests each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--systems", type=int, default=5)
    parser.add_argument("--resamples", type=int, default=10_000)
    arguments = parser.parse_args()

    import numpy as np
    import scipy.special  # noqa: F401 (its import is not what is timed)

    from rankline.gates.clusters import Clustered

    rng = np.random.default_rng(0)
    contrasts = [[1.0, *(-1.0 if other == n else 0.0 for other in range(1, arguments.systems))]
                 for n in range(1, arguments.systems)]  # fmt: skip
    print("| requests | users | systems | resamples | seconds | of it processor |")
    print("| --- | --- | --- | --- | --- | --- |")
    for per_user in (1, 5):
        users = arguments.requests // per_user
        scores = np.repeat(rng.random((users, 1)), per_user, axis=0) + rng.random((users * per_user, arguments.systems))
        clusters = [f"user {n}" for n in np.repeat(np.arange(users), per_user)]
        started, worked = time.perf_counter(), time.process_time()
        Clustered.of(scores, clusters).effects(contrasts, resamples=arguments.resamples, confidence=0.95, seed=0)
        seconds, worked = time.perf_counter() - started, time.process_time() - worked
        size = f"{len(scores):,} | {users:,} | {arguments.systems} | {arguments.resamples:,}"
        print(f"| {size} | {seconds:.2f} | {worked:.2f} |")


if __name__ == "__main__":
    main()
