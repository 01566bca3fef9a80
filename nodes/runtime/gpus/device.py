"""A GPU and its backend, and how capable it is as one number."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import exp2
from typing import Final

GIB: Final = 1024**3


class GpuBackend(StrEnum):
    """What the engines are built against: nvidia → cuda, amd → rocm, apple → metal, none → cpu."""

    METAL = "metal"
    CUDA = "cuda"
    ROCM = "rocm"
    DIRECTML = "directml"
    CPU = "cpu"


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU. Memory is bytes, utilisation is percent; None is what the vendor does not tell."""

    index: int
    name: str
    memory_total: int | None = None
    memory_used: int | None = None
    utilisation: float | None = None
    capability_score: int | None = None  # 0–10000 (SPEC-589f2df1)


# What is measured, how much it counts, and at which step of it the rest to the full score halves. So calibrated that an
# RTX 4090 has about 9850 and an RTX 3080 about 9170, which are the two that SPEC-5cd7b614 names.
_MEMORY: Final = (0.6, 3.0)  # GiB
_CLOCK: Final = (0.2, 600.0)  # MHz, the highest
_COMPUTE: Final = (0.2, 1.7)  # CUDA's compute capability


def capability_score(memory: int | None, clock: float | None = None, compute: float | None = None) -> int | None:
    """0 to 10000, to order GPUs by: memory in bytes, the highest clock in MHz, compute capability (8.9).

    Clock and compute capability count where they are known; a GPU whose memory is unknown has no score.
    """
    if not memory or memory < 0:
        return None
    known = [(weight, value / step) for (weight, step), value in _parts(memory, clock, compute) if value]
    whole = sum(weight for weight, _ in known)
    return round(10_000 * sum(weight * (1 - exp2(-halvings)) for weight, halvings in known) / whole)


def _parts(
    memory: int, clock: float | None, compute: float | None
) -> tuple[tuple[tuple[float, float], float | None], ...]:
    return (_MEMORY, memory / GIB), (_CLOCK, clock), (_COMPUTE, compute)
