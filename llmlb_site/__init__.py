"""llmlb: one OpenAI-compatible URL in front of many inference servers."""

from typing import Final

__version__: Final = "0.1.0"
