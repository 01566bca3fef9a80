"""Which GPU a machine has, on machines that are files, fake libraries and fake programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nodes.runtime.backend import Device, GpuBackend, GpuDetector, capability_score
from nodes.runtime.gpus.machine import Machine, run

GIB = 1024**3
SMI = """0, NVIDIA GeForce RTX 4090, 24564, 1200, 37, 3105, 8.9
1, NVIDIA GeForce RTX 3080, 10240, [N/A], [N/A], 2100, 8.6
"""


class FakeNvml:
    """nvidia-ml-py on a machine with one card that does not tell how busy it is."""

    NVML_CLOCK_SM = 1

    class NVMLError(Exception): ...

    def __init__(self, *, driver: bool = True, cards: int = 1) -> None:
        self.driver = driver
        self.cards = cards
        self.open = 0

    def nvmlInit(self) -> None:
        if not self.driver:
            raise self.NVMLError
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return self.cards

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> bytes:
        return b"NVIDIA GeForce RTX 4090"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(total=24 * GIB, used=2 * GIB)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        raise self.NVMLError

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> tuple[int, int]:
        return 8, 9

    def nvmlDeviceGetMaxClockInfo(self, handle: int, kind: int) -> int:
        return 3105


class FakeRegistry:
    """winreg with DirectX's adapters."""

    HKEY_LOCAL_MACHINE = "HKLM"

    def __init__(self, *adapters: dict[str, Any]) -> None:
        self.adapters = {f"{{{index}}}": adapter for index, adapter in enumerate(adapters)}

    def OpenKey(self, key: Any, name: str) -> Any:
        class Key:
            values = self.adapters.get(name, {})

            def __enter__(self) -> Any:
                return self

            def __exit__(self, *raised: object) -> None: ...

        return Key()

    def EnumKey(self, key: Any, index: int) -> str:
        try:
            return list(self.adapters)[index]
        except IndexError:
            raise OSError from None

    def QueryValueEx(self, key: Any, name: str) -> tuple[Any, int]:
        if name not in key.values:
            raise FileNotFoundError
        return key.values[name], 1


def machine(
    root: Path,
    *,
    system: str = "Linux",
    architecture: str = "x86_64",
    says: dict[str, str] | None = None,
    **modules: Any,
) -> Machine:
    """A machine whose programs answer `says`, by the program's last word or its name."""

    def answer(command: Sequence[str]) -> str:
        replies = says or {}
        return replies.get(command[-1]) or replies.get(command[0], "")

    return Machine(system=system, architecture=architecture, root=root, load=modules.get, run=answer)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def add_amd(root: Path, card: int = 0, *, computes: bool = True, vendor: str = "0x1002") -> None:
    folder = root / f"sys/class/drm/card{card}/device"
    write(folder / "vendor", vendor)
    write(folder / "mem_info_vram_total", str(16 * GIB))
    write(folder / "mem_info_vram_used", str(3 * GIB))
    write(folder / "gpu_busy_percent", "12")
    write(folder / "product_name", "Radeon RX 7900")
    write(folder / "pp_dpm_sclk", "0: 500Mhz\n1: 2482Mhz *")
    write(root / "sys/class/drm" / f"card{card}-DP-1" / "status", "connected")
    write(root / "sys/class/kfd/kfd/topology/nodes/0/gpu_id", "0")
    write(root / "dev/kfd", "")
    if computes:
        write(root / "sys/class/kfd/kfd/topology/nodes/1/gpu_id", "51234")


def detect(machine: Machine) -> tuple[GpuBackend, tuple[Device, ...]]:
    detector = GpuDetector(machine=machine)
    return detector.get_gpu_backend(), detector.devices()


def test_a_machine_without_a_gpu_says_cpu(tmp_path: Path) -> None:
    assert detect(machine(tmp_path)) == (GpuBackend.CPU, ())


def test_nvidia_by_its_library(tmp_path: Path) -> None:
    nvml = FakeNvml()
    backend, (device,) = detect(machine(tmp_path, pynvml=nvml))
    assert backend is GpuBackend.CUDA
    assert device == Device(0, "NVIDIA GeForce RTX 4090", 24 * GIB, 2 * GIB, None, device.capability_score)
    assert device.capability_score == pytest.approx(9850, abs=50)
    assert nvml.open == 0


def test_nvidia_by_its_program_where_the_library_has_no_driver(tmp_path: Path) -> None:
    on = machine(tmp_path, says={"nvidia-smi": SMI}, pynvml=FakeNvml(driver=False))
    backend, (first, second) = detect(on)
    assert backend is GpuBackend.CUDA
    assert (first.memory_total, first.memory_used, first.utilisation) == (24564 * 1024**2, 1200 * 1024**2, 37.0)
    assert (second.name, second.memory_used, second.utilisation) == ("NVIDIA GeForce RTX 3080", None, None)


def test_nvidia_by_its_driver_where_there_is_neither_library_nor_program(tmp_path: Path) -> None:
    write(tmp_path / "proc/driver/nvidia/gpus/0000:01:00.0/information", "Model: \t NVIDIA A100\nIRQ:   135")
    write(tmp_path / "dev/nvidia0", "")
    assert detect(machine(tmp_path)) == (GpuBackend.CUDA, (Device(0, "NVIDIA A100"),))


def test_a_container_without_a_gpu_on_a_host_with_one_says_cpu(tmp_path: Path) -> None:
    write(tmp_path / "proc/driver/nvidia/gpus/0000:01:00.0/information", "Model: NVIDIA A100")
    add_amd(tmp_path)
    (tmp_path / "dev/kfd").unlink()
    assert detect(machine(tmp_path)) == (GpuBackend.CPU, ())


def test_amd_by_the_kernel(tmp_path: Path) -> None:
    add_amd(tmp_path, 1)
    add_amd(tmp_path, 0, vendor="0x8086")
    backend, (device,) = detect(machine(tmp_path))
    assert backend is GpuBackend.ROCM
    assert (device.name, device.memory_total, device.memory_used) == ("Radeon RX 7900", 16 * GIB, 3 * GIB)
    assert device.utilisation == 12.0
    assert device.capability_score == capability_score(16 * GIB, 2482)


def test_an_amd_card_that_cannot_compute_is_no_backend(tmp_path: Path) -> None:
    add_amd(tmp_path, computes=False)
    assert detect(machine(tmp_path)) == (GpuBackend.CPU, ())


def test_figures_that_the_kernel_does_not_tell_are_unknown(tmp_path: Path) -> None:
    add_amd(tmp_path)
    folder = tmp_path / "sys/class/drm/card0/device"
    for name in ("mem_info_vram_total", "mem_info_vram_used", "gpu_busy_percent", "product_name"):
        (folder / name).unlink()
    write(folder / "device", "0x744c")
    assert detect(machine(tmp_path)) == (GpuBackend.ROCM, (Device(0, "AMD GPU 0x744c"),))


def test_nvidia_goes_before_amd(tmp_path: Path) -> None:
    add_amd(tmp_path)
    assert detect(machine(tmp_path, pynvml=FakeNvml()))[0] is GpuBackend.CUDA


def test_apple_silicon(tmp_path: Path) -> None:
    says = {"machdep.cpu.brand_string": "Apple M3 Max\n", "hw.memsize": f"{64 * GIB}\n"}
    backend, (device,) = detect(machine(tmp_path, system="Darwin", architecture="arm64", says=says))
    assert (backend, device.name, device.memory_total) == (GpuBackend.METAL, "Apple M3 Max", 64 * GIB)


def test_a_mac_with_an_intel_processor_says_cpu(tmp_path: Path) -> None:
    assert detect(machine(tmp_path, system="Darwin"))[0] is GpuBackend.CPU


def test_windows_by_directx_without_the_adapter_that_is_software(tmp_path: Path) -> None:
    registry = FakeRegistry(
        {"Description": "Microsoft Basic Render Driver", "VendorId": 0x1414},
        {"Description": "Intel Arc A770", "VendorId": 0x8086, "DedicatedVideoMemory": 16 * GIB},
        {},
    )
    backend, (device,) = detect(machine(tmp_path, system="Windows", architecture="AMD64", winreg=registry))
    assert (backend, device.index, device.name, device.memory_total) == (
        GpuBackend.DIRECTML,
        0,
        "Intel Arc A770",
        16 * GIB,
    )


@pytest.mark.parametrize("forced", list(GpuBackend))
def test_a_forced_backend_is_taken_as_it_is(tmp_path: Path, forced: GpuBackend) -> None:
    detector = GpuDetector(forced.value, machine(tmp_path, pynvml=FakeNvml()))
    assert detector.get_gpu_backend() is forced
    assert len(detector.devices()) == (1 if forced is GpuBackend.CUDA else 0)


def test_a_library_that_fails_in_its_own_way_is_as_good_as_none(tmp_path: Path) -> None:
    class Failing(FakeNvml):
        def nvmlDeviceGetCount(self) -> int:
            raise RuntimeError("out of order")

    add_amd(tmp_path)
    assert detect(machine(tmp_path, pynvml=Failing()))[0] is GpuBackend.ROCM


def test_figures_are_asked_for_again_after_a_second_and_the_backend_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("nodes.runtime.backend.time.monotonic", lambda: now[0])
    nvml = FakeNvml()
    detector = GpuDetector(machine=machine(tmp_path, pynvml=nvml))
    assert detector.get_gpu_backend() is GpuBackend.CUDA
    nvml.cards = 2
    assert len(detector.devices()) == 1
    now[0] += 1.1
    assert len(detector.devices()) == 2
    nvml.cards = 0
    now[0] += 1.1
    assert detector.devices() == ()
    assert detector.get_gpu_backend() is GpuBackend.CUDA


@pytest.mark.parametrize(
    ("memory", "clock", "compute", "score"),
    [(24, 3105, 8.9, 9850), (10, 2100, 8.6, 9170)],
    ids=["RTX 4090", "RTX 3080"],
)
def test_the_score_of_the_cards_that_the_specification_names(
    memory: int, clock: float, compute: float, score: int
) -> None:
    assert capability_score(memory * GIB, clock, compute) == pytest.approx(score, abs=50)


def test_a_score_is_within_its_range_and_grows_with_the_memory() -> None:
    scores = [capability_score(memory * GIB, 2000, 8.0) or 0 for memory in (1, 4, 12, 24, 80, 10_000)]
    assert scores == sorted(scores)
    assert 0 < scores[0] < scores[-1] <= 10_000
    assert capability_score(None, 2000, 8.0) is None
    assert capability_score(0) is None


def test_this_machine_is_asked_without_an_error() -> None:
    assert GpuDetector().get_gpu_backend() in GpuBackend


def test_a_program_that_fails_or_is_not_there_says_nothing() -> None:
    assert run(("no-such-program-anywhere",)) == ""
    assert run(("sh", "-c", "echo text; exit 1")) == ""
    assert run(("sh", "-c", "echo text")) == "text\n"
