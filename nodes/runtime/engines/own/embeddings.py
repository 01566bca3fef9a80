"""Embeddings of a text encoder in an ONNX file: `/v1/embeddings`.

One vector a text: the mean of its tokens' vectors, or the first one where the model says so (`1_Pooling/config.json`
of sentence-transformers), of length 1.
"""

from __future__ import annotations

import base64
import json
import threading
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from nodes.runtime.engines.own.serving import Stopped, arguments, serve, work
from nodes.runtime.serving.http import Refused, Request, Response, Route

MAX_BODY_BYTES: Final = 64 * 1024 * 1024
MAX_TEXTS: Final = 2048  # as OpenAI's
BATCH: Final = 16
DEFAULT_TOKENS: Final = 512
MOST_TOKENS: Final = 1_000_000
# These number their positions from 2: of 514 there is room for 512 tokens.
_COUNT_FROM_TWO: Final = frozenset({"roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl"})
Vectors: TypeAlias = Any  # numpy's arrays of float32; numpy comes with the engines, and its types are not asked for


class Encoder:
    """One model, loaded. Used from several threads: ONNX Runtime allows that."""

    def __init__(self, path: Path, threads: int = 0) -> None:
        home = next(
            (folder for folder in (path.parent, path.parent.parent) if (folder / "tokenizer.json").is_file()), None
        )
        if home is None:
            raise SystemExit("tokenizer.json is missing beside the model")
        how = onnxruntime.SessionOptions()
        how.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(str(path), how, providers=onnxruntime.get_available_providers())
        self._inputs = {given.name for given in self._session.get_inputs()}
        self._tokenizer = Tokenizer.from_file(str(home / "tokenizer.json"))
        self._tokenizer.enable_truncation(_longest(home))
        self._tokenizer.enable_padding()
        self._first_token = _document(home / "1_Pooling" / "config.json").get("pooling_mode_cls_token") is True

    def embed(self, texts: list[str], gone: threading.Event) -> tuple[list[Vectors], int]:
        """A vector for each text, and how many tokens they were. Raises: Stopped."""
        vectors: list[Vectors] = []
        tokens = 0
        for start in range(0, len(texts), BATCH):
            if gone.is_set():
                raise Stopped
            encoded = self._tokenizer.encode_batch(texts[start : start + BATCH])
            mask = np.array([each.attention_mask for each in encoded], dtype=np.int64)
            given = {
                "input_ids": np.array([each.ids for each in encoded], dtype=np.int64),
                "attention_mask": mask,
                "token_type_ids": np.array([each.type_ids for each in encoded], dtype=np.int64),
            }
            told = {name: values for name, values in given.items() if name in self._inputs}
            hidden = self._session.run(None, told)[0]
            vectors.extend(self._pool(np.asarray(hidden, dtype=np.float32), mask))
            tokens += int(mask.sum())
        return vectors, tokens

    def _pool(self, hidden: Vectors, mask: Any) -> list[Vectors]:
        if hidden.ndim == 2:  # the export pools by itself
            pooled = hidden
        elif self._first_token:
            pooled = hidden[:, 0]
        else:
            weights = mask[..., None].astype(np.float32)
            pooled = (hidden * weights).sum(axis=1) / np.clip(weights.sum(axis=1), 1e-9, None)
        return list(pooled / np.clip(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-12, None))


def _longest(home: Path) -> int:
    """How many tokens the model reads of a text."""
    config = _document(home / "config.json")
    positions = config.get("max_position_embeddings")
    if isinstance(positions, int) and config.get("model_type") in _COUNT_FROM_TWO:
        positions -= 2
    told = (
        _document(home / "sentence_bert_config.json").get("max_seq_length"),
        _document(home / "tokenizer_config.json").get("model_max_length"),  # 10^30 where nobody knows
        positions,
    )
    known = [count for count in told if isinstance(count, int) and 0 < count <= MOST_TOKENS]
    return min(known, default=DEFAULT_TOKENS)


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def read_texts(asked: dict[str, Any]) -> list[str]:
    """The texts of a request. Raises: Refused (400)."""
    given = asked.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise Refused(400, "invalid_value", "'input' must be a text or a list of texts.", param="input")
    if len(texts) > MAX_TEXTS:
        raise Refused(400, "invalid_value", f"'input' has more than {MAX_TEXTS} texts.", param="input")
    if asked.get("encoding_format", "float") not in ("float", "base64"):
        raise Refused(400, "invalid_value", "'encoding_format' is float or base64.", param="encoding_format")
    return texts


def read_dimensions(asked: dict[str, Any], width: int) -> int:
    """How many numbers of each vector are wanted. Raises: Refused (400)."""
    wanted = asked.get("dimensions")
    if wanted is None:
        return width
    if isinstance(wanted, bool) or not isinstance(wanted, int) or not 1 <= wanted <= width:
        raise Refused(400, "invalid_value", f"'dimensions' must be from 1 to {width}.", param="dimensions")
    return wanted


def shortened(vector: Vectors, dimensions: int) -> Vectors:
    """Its first numbers, of length 1 again."""
    if dimensions == len(vector):
        return vector
    part = vector[:dimensions]
    scaled: Vectors = part / max(float(np.linalg.norm(part)), 1e-12)
    return scaled


def main() -> None:
    options = arguments(__doc__ or "", name="", threads="0")
    encoder = Encoder(Path(options.model), int(options.threads))

    async def embeddings(request: Request) -> Response:
        asked = json.loads(await request.body(MAX_BODY_BYTES))
        texts = read_texts(asked)
        vectors, tokens = await work(request, lambda gone: encoder.embed(texts, gone))
        dimensions = read_dimensions(asked, len(vectors[0]))
        as_text = asked.get("encoding_format") == "base64"
        data = []
        for index, vector in enumerate(vectors):
            numbers = shortened(vector, dimensions)
            value = base64.b64encode(numbers.astype("<f4").tobytes()).decode() if as_text else numbers.tolist()
            data.append({"object": "embedding", "index": index, "embedding": value})
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return Response.of(
            {"object": "list", "data": data, "model": asked.get("model") or options.name, "usage": usage}
        )

    serve([Route("POST", "/v1/embeddings", embeddings)], options.port)


if __name__ == "__main__":
    main()
