"""What the published code (txie-93/cdvae, commit f857f59) took, measured on two CPU threads.

Medians of steps that nothing else disturbed, float32, on an AMD EPYC with AVX-512, whose rate of
matrix products was measured beside them: 71 GFLOP/s per core for 20,000 x 128 x 128. Sources: the
project's own runs of that code with torch 2.13; its report is not part of this repository.
"""

from __future__ import annotations

from dataclasses import dataclass

MATRIX_RATE = 142.0  # GFLOP/s of both cores in float32
SECONDS_PER_PEROVSKITE = 39.0  # 5,000 evaluations, 64 crystals at once
SECONDS_TO_BUILD = 10.4  # the model


@dataclass(frozen=True)
class Speed:
    """Crystals per second and peak memory in GB, in training and in evaluating the score."""

    train: float
    score: float
    train_memory: float
    score_memory: float


SPEED = {
    ("perov_5", 64): Speed(55, 129, 2.2, 0.86),
    ("perov_5", 256): Speed(37, 103, 6.7, 1.8),
    ("carbon_24", 64): Speed(28, 58, 3.5, 1.1),
}
