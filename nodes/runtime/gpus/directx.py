"""Windows: the adapters that DirectX has listed in the registry, without the one that is software."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from nodes.runtime.gpus.device import Device, capability_score
from nodes.runtime.gpus.machine import Machine

KEY: Final = r"SOFTWARE\Microsoft\DirectX"
MICROSOFT: Final = 0x1414  # the "Basic Render Driver": the processor
MOST_ADAPTERS: Final = 64


def devices(machine: Machine) -> tuple[Device, ...]:
    """The GPUs that DirectML can use; Windows tells their memory, not its use."""
    registry = machine.load("winreg") if machine.system == "Windows" else None
    if registry is None:
        return ()
    adapters = [found for found in _adapters(registry) if found.get("VendorId") not in (None, MICROSOFT)]
    return tuple(_device(index, found) for index, found in enumerate(adapters))


def _adapters(registry: Any) -> Iterator[dict[str, Any]]:
    try:
        with registry.OpenKey(registry.HKEY_LOCAL_MACHINE, KEY) as top:
            names = [name for index in range(MOST_ADAPTERS) if (name := _name(registry, top, index))]
            for name in names:
                with registry.OpenKey(top, name) as key:
                    yield {
                        field: _value(registry, key, field)
                        for field in ("Description", "VendorId", "DedicatedVideoMemory")
                    }
    except OSError:
        return


def _name(registry: Any, key: Any, index: int) -> str:
    try:
        return str(registry.EnumKey(key, index))
    except OSError:  # there are no more
        return ""


def _value(registry: Any, key: Any, name: str) -> Any:
    try:
        return registry.QueryValueEx(key, name)[0]
    except OSError:
        return None


def _device(index: int, adapter: dict[str, Any]) -> Device:
    memory = adapter["DedicatedVideoMemory"]
    total = memory if isinstance(memory, int) and memory > 0 else None
    name = str(adapter["Description"] or "DirectX adapter")
    return Device(index, name, memory_total=total, capability_score=capability_score(total))
