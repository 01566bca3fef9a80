"""Which GPU this machine computes with, and how busy it is (SPEC-93536000 phase 2)."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from nodes.runtime.gpus import amd, apple, directx, nvidia
from nodes.runtime.gpus.device import Device, GpuBackend, capability_score
from nodes.runtime.gpus.machine import Machine

__all__ = ["AUTO", "Device", "GpuBackend", "GpuDetector", "capability_score"]

log = logging.getLogger("llmlb.node.gpu")

AUTO: Final = "auto"
FRESH: Final = 1.0  # seconds for which figures are not asked for again: nvidia-smi takes a good part of one

# In this order: who has a card of NVIDIA beside a small GPU in the processor computes with the card.
_PROBES: Final[tuple[tuple[GpuBackend, Callable[[Machine], tuple[Device, ...]]], ...]] = (
    (GpuBackend.CUDA, nvidia.devices),
    (GpuBackend.ROCM, amd.devices),
    (GpuBackend.METAL, apple.devices),
    (GpuBackend.DIRECTML, directx.devices),
)


class GpuDetector:
    """Asks drivers and vendors' libraries. `override` is LLM_RUNTIME_GPU_BACKEND: `auto`, or a backend's name.

    What is found at first stays: a node's backend does not change while it runs. Usable from any thread.
    """

    def __init__(self, override: str = AUTO, machine: Machine | None = None) -> None:
        self.override = override
        self._machine = machine or Machine()
        self._found: GpuBackend | None = None
        self._devices: tuple[Device, ...] = ()
        self._asked = float("-inf")
        self._lock = threading.Lock()

    def get_gpu_backend(self) -> GpuBackend:
        """The backend of the primary GPU; `cpu` where there is none."""
        if self.override != AUTO:
            return GpuBackend(self.override)
        with self._lock:
            if self._found is None:
                self._found = next((backend for backend, _ in _PROBES if self._ask(backend)), GpuBackend.CPU)
                log.info("gpu: backend=%s devices=%s", self._found, [device.name for device in self._devices])
            return self._found

    def devices(self) -> tuple[Device, ...]:
        """The GPUs of that backend, with figures that are a second old at most; empty on a CPU.

        Where another backend is forced than the machine has, there are none of it.
        """
        backend = self.get_gpu_backend()
        with self._lock:
            if backend is not GpuBackend.CPU and time.monotonic() - self._asked >= FRESH:
                self._ask(backend)
            return self._devices

    def _ask(self, backend: GpuBackend) -> bool:
        """Takes the figures of one backend's devices; whether there are any."""
        probe = dict(_PROBES)[backend]
        try:
            self._devices = probe(self._machine)
        except Exception:  # a vendor's library may raise anything; a node without its figures still serves
            log.exception("gpu: asking for %s failed", backend)
            self._devices = ()
        self._asked = time.monotonic()
        return bool(self._devices)
