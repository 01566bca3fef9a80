"""NVIDIA: NVML through nvidia-ml-py where that is installed, otherwise the driver's /proc files and nvidia-smi."""

from __future__ import annotations

import csv
from collections.abc import Callable
from typing import Any, Final

from nodes.runtime.gpus.device import Device, capability_score
from nodes.runtime.gpus.machine import Machine

MIB: Final = 1024**2
_QUERY: Final = "index,name,memory.total,memory.used,utilization.gpu,clocks.max.sm,compute_cap"


def devices(machine: Machine) -> tuple[Device, ...]:
    """The GPUs that CUDA can use, with their figures as of now."""
    return _of_library(machine.load("pynvml")) or _of_program(machine) or _of_driver(machine)


def _of_library(nvml: Any | None) -> tuple[Device, ...]:
    if nvml is None:
        return ()
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:  # the package is here, a driver is not
        return ()
    try:
        return tuple(_ask(nvml, index) for index in range(nvml.nvmlDeviceGetCount()))
    except nvml.NVMLError:
        return ()
    finally:
        nvml.nvmlShutdown()


def _ask(nvml: Any, index: int) -> Device:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)

    def told(question: Callable[..., Any], *more: Any) -> Any | None:
        try:
            return question(handle, *more)
        except nvml.NVMLError:  # many cards do not tell some figures
            return None

    name = told(nvml.nvmlDeviceGetName) or "NVIDIA GPU"
    memory = told(nvml.nvmlDeviceGetMemoryInfo)
    rates = told(nvml.nvmlDeviceGetUtilizationRates)
    compute = told(nvml.nvmlDeviceGetCudaComputeCapability)
    total = None if memory is None else int(memory.total)
    return Device(
        index=index,
        name=name.decode() if isinstance(name, bytes) else str(name),
        memory_total=total,
        memory_used=None if memory is None else int(memory.used),
        utilisation=None if rates is None else float(rates.gpu),
        capability_score=capability_score(
            total,
            told(nvml.nvmlDeviceGetMaxClockInfo, nvml.NVML_CLOCK_SM),
            None if compute is None else compute[0] + compute[1] / 10,
        ),
    )


def _of_program(machine: Machine) -> tuple[Device, ...]:
    text = machine.run(("nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"))
    rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines())]
    return tuple(_from_row(row) for row in rows if len(row) == len(_QUERY.split(",")) and row[0].isdigit())


def _from_row(row: list[str]) -> Device:
    index, name, total, used, busy, clock, compute = row
    memory, in_use = _number(total), _number(used)
    size = None if memory is None else int(memory * MIB)
    return Device(
        index=int(index),
        name=name,
        memory_total=size,
        memory_used=None if in_use is None else int(in_use * MIB),
        utilisation=_number(busy),
        capability_score=capability_score(size, _number(clock), _number(compute)),
    )


def _number(text: str) -> float | None:
    """A figure of nvidia-smi, which writes "[N/A]" and the like for what a card does not tell."""
    try:
        return float(text)
    except ValueError:
        return None


def _of_driver(machine: Machine) -> tuple[Device, ...]:
    """Names alone, from /proc/driver/nvidia/gpus/<bus>/information.

    A container sees these files of its host's GPUs also where it was given none: then it lacks /dev/nvidia0.
    """
    if not any((machine.root / "dev").glob("nvidia[0-9]*")):
        return ()
    folders = sorted((machine.root / "proc/driver/nvidia/gpus").glob("*"))
    texts = [machine.read(folder / "information") for folder in folders]
    return tuple(Device(index, _model(text)) for index, text in enumerate(text for text in texts if text))


def _model(text: str) -> str:
    lines = (line.partition(":") for line in text.splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == "Model"), "NVIDIA GPU")
