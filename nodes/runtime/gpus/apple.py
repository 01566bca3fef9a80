"""Apple silicon: one GPU, which shares the machine's memory. macOS tells no program of its use without privileges."""

from __future__ import annotations

from nodes.runtime.gpus.device import Device, capability_score
from nodes.runtime.gpus.machine import Machine


def devices(machine: Machine) -> tuple[Device, ...]:
    """The GPU of a Mac with Apple silicon."""
    if machine.system != "Darwin" or machine.architecture != "arm64":
        return ()
    name = machine.run(("sysctl", "-n", "machdep.cpu.brand_string")).strip()
    memory = machine.run(("sysctl", "-n", "hw.memsize")).strip()
    total = int(memory) if memory.isdigit() else None
    return (Device(0, name or "Apple GPU", memory_total=total, capability_score=capability_score(total)),)
