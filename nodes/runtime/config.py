"""The node's settings, read from the environment once, checked, and frozen. See docs/node.md.

Each variable can also be given as a file: `<NAME>_FILE` holds a path whose content is the value.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from environs import EnvError, FileAwareEnv

from nodes.runtime.backend import GpuBackend

Number = TypeVar("Number", int, float)

BACKENDS: Final = ("auto", *(backend.value for backend in GpuBackend))
LOG_LEVELS: Final = ("debug", "info", "warning", "error")
MIB: Final = 1024 * 1024


class BadSetting(Exception):
    """A variable cannot be used. The message is one line: the variable, the value, the range."""


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Every `LLM_RUNTIME_*` variable, typed. Times are seconds, memory is bytes; 0 means "no limit" or "never"."""

    models_dir: Path
    host: str = "127.0.0.1"
    port: int = 32769
    gpu_backend: str = "auto"
    require_gpu: bool = False
    api_key: str = field(default="", repr=False)
    parallel: int = 1
    idle: float = 300.0
    memory_bytes: int = 0
    context: int = 8192
    threads: int = 0
    load_wait: float = 5.0
    load_timeout: float = 600.0
    answer_timeout: float = 600.0
    max_body_bytes: int = 100 * MIB
    log_level: str = "info"


# The variable of each field that is not LLM_RUNTIME_ and the field's name.
VARIABLE_NAMES: Final = {
    "memory_bytes": "LLM_RUNTIME_MEMORY_MB",
    "idle": "LLM_RUNTIME_IDLE_SECS",
    "load_wait": "LLM_RUNTIME_LOAD_WAIT_SECS",
    "load_timeout": "LLM_RUNTIME_LOAD_TIMEOUT_SECS",
    "answer_timeout": "LLM_RUNTIME_ANSWER_TIMEOUT_SECS",
}


def variable_of(name: str) -> str:
    """The variable that a field of `NodeConfig` is read from."""
    return VARIABLE_NAMES.get(name, f"LLM_RUNTIME_{name.upper()}")


def read_config() -> NodeConfig:
    """The settings of this process, from its environment. Raises: BadSetting."""
    models_dir = _text("models_dir", "./models")
    return NodeConfig(
        models_dir=Path(models_dir).expanduser().absolute(),
        host=_text("host", "127.0.0.1"),
        port=_number("port", 32769, 1, 65535, int),
        gpu_backend=_choice("gpu_backend", "auto", BACKENDS),
        require_gpu=_choice("require_gpu", "false", ("true", "false")) == "true",
        api_key=_text("api_key", ""),
        parallel=_number("parallel", 1, 1, 256, int),
        idle=_number("idle", 300.0, 0, 7 * 86400, float),
        memory_bytes=_number("memory_bytes", 0, 0, 64 * MIB, int) * MIB,
        context=_number("context", 8192, 0, 16 * MIB, int),
        threads=_number("threads", 0, 0, 1024, int),
        load_wait=_number("load_wait", 5.0, 0, 110, float),
        load_timeout=_number("load_timeout", 600.0, 5, 86400, float),
        answer_timeout=_number("answer_timeout", 600.0, 5, 86400, float),
        max_body_bytes=_number("max_body_bytes", 100 * MIB, 1024, 4096 * MIB, int),
        log_level=_choice("log_level", "info", LOG_LEVELS),
    )


def _text(name: str, default: str) -> str:
    variable = variable_of(name)
    try:
        return FileAwareEnv().str(variable, default).strip()
    except (EnvError, OSError, ValueError) as error:
        raise BadSetting(f"{variable}_FILE={os.environ.get(variable + '_FILE')}: {error}") from error


def _choice(name: str, default: str, choices: tuple[str, ...]) -> str:
    value = _text(name, default).lower()
    if value not in choices:
        raise BadSetting(f"{variable_of(name)}={value}: must be one of {', '.join(choices)}.")
    return value


def _number(name: str, default: Number, low: float, high: float, kind: Callable[[str], Number]) -> Number:
    raw = _text(name, f"{default:.15g}")
    try:
        value = kind(raw)
    except ValueError:
        value = None
    if value is None or not low <= value <= high:
        raise BadSetting(f"{variable_of(name)}={raw}: must be a number from {low:.15g} to {high:.15g}.")
    return value
