"""distill: from the teacher to a student that is fast to serve.

Reads    features/  teacher/
Writes   student/   weights.safetensors, student.json, curve.json
                    encoder/, text_vectors.npy     the text tower
                    sources/covisit.npz, sources/popularity.npy
                    choice.json                    what ranks, and how the alternatives did on unseen requests
                    policy.json                    its calibration, and when it abstains
                    parity.parquet                 candidates and torch's logits for the test requests
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from components.distill.config import DistillConfig
from rankline.runtime.progress import Progress


def distill(
    features: Path,
    teacher: Path,
    student: Path,
    *,
    config: DistillConfig,
    progress: Progress,
    checkpoints: Path | None = None,
) -> dict[str, Any]:
    """Train the student of the teacher in ``teacher``; a killed run resumes from its last epoch.

    Raises:
        DeviceError: the device is not available.
        TooSmall: there are too few validation impressions to learn a declared label.
        TrainingError: the loss is not a number.
        UsageError: the encoder has no layers for the adapters.
    """
    from components.distill.student import train_student

    return train_student(features, teacher, student, config, progress=progress, checkpoints=checkpoints)
