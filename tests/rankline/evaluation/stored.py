"""The stored scores of an evaluation, as tests compare them."""

from pathlib import Path

from rankline.gates.evidence import read_evidence


def read_scores(folder: Path, metric: str) -> dict[str, dict[str, float]]:
    """System -> request id -> score, of the systems with the candidate's requests."""
    evidence = read_evidence(folder)
    by_system = evidence.scores.get(metric, {})
    return {name: dict(zip(evidence.request_ids, own.tolist(), strict=True)) for name, own in by_system.items()}
