"""AMD under Linux: what the amdgpu driver and its compute side (KFD) say in /sys.

https://docs.kernel.org/gpu/amdgpu/driver-misc.html for the figures of a card. A card that KFD does not list cannot be
computed with, whatever it can draw.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from nodes.runtime.gpus.device import Device, capability_score
from nodes.runtime.gpus.machine import Machine

VENDOR: Final = 0x1002
_CARD: Final = re.compile(r"card(\d+)\Z")
_CLOCK: Final = re.compile(r"(\d+)\s*mhz", re.IGNORECASE)
_TOPOLOGY: Final = "sys/class/kfd/kfd/topology/nodes"


def devices(machine: Machine) -> tuple[Device, ...]:
    """The GPUs that ROCm can use, with their figures as of now."""
    if not _computes(machine):
        return ()
    cards = [path for path in (machine.root / "sys/class/drm").glob("card*") if _CARD.match(path.name)]
    cards = [path for path in cards if machine.number(path / "device/vendor") == VENDOR]
    cards.sort(key=lambda path: int(path.name.removeprefix("card")))
    return tuple(_device(machine, index, card / "device") for index, card in enumerate(cards))


def _computes(machine: Machine) -> bool:
    """Whether KFD has a node that is a GPU: the processors are nodes too, with a gpu_id of 0.

    A container sees the nodes of its host also where it was given none of them: then it lacks /dev/kfd.
    """
    if not (machine.root / "dev/kfd").exists():
        return False
    nodes = (machine.root / _TOPOLOGY).glob("*")
    return any((machine.number(node / "gpu_id") or 0) != 0 for node in nodes)


def _device(machine: Machine, index: int, folder: Path) -> Device:
    total = machine.number(folder / "mem_info_vram_total")
    busy = machine.number(folder / "gpu_busy_percent")
    clocks = [int(clock) for clock in _CLOCK.findall(machine.read(folder / "pp_dpm_sclk"))]
    return Device(
        index=index,
        name=machine.read(folder / "product_name") or f"AMD GPU {machine.read(folder / 'device')}".strip(),
        memory_total=total,
        memory_used=machine.number(folder / "mem_info_vram_used"),
        utilisation=None if busy is None else float(busy),
        capability_score=capability_score(total, max(clocks, default=None)),
    )
