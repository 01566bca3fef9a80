"""OpenAI's images: made from a text, changed by one, or varied.

https://platform.openai.com/docs/api-reference/images, and SPEC-ae3f974e for the limits. Refused is only what no image
model takes: sizes, qualities and styles differ from one to the next, and are for the node to judge.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec

from llmlb_site.lib.multipart import Part
from llmlb_site.lib.upstream.faults import MalformedFault
from routing.core.errors import parameter_invalid
from routing.core.media import image_type
from routing.core.table import NodeEntry
from routing.protocols.base import OPENAI, Answer, Api, Call, Envelope, Plan, Range, envelope_reader
from routing.protocols.checks import check_choice, check_text
from routing.protocols.forms import form_of, read_form, upload
from routing.protocols.passing import PassedStream, read_usage, renamed, restoring

MIB: Final = 1024 * 1024
MAX_PROMPT_CHARACTERS: Final = 32_000
MAX_IMAGES: Final = 16
MAX_IMAGE_BYTES: Final = 50 * MIB
# Of images to be varied, and of all that go to the one older model.
MAX_PNG_BYTES: Final = 4 * MIB
PNG_ONLY: Final = "dall-e-2"
ANSWER_FORMATS: Final = ("url", "b64_json")

_COMPLETED: Final = re.compile(rb'"type"\s*:\s*"image_(generation|edit)\.completed"')


class GenerationEnvelope(Envelope):
    """What concerns the gateway of a request for images."""

    prompt: Any = None
    response_format: Any = None


class _Images(msgspec.Struct):
    data: list[msgspec.Raw]
    usage: msgspec.Raw = msgspec.Raw(b"null")


_images: Final = msgspec.json.Decoder(_Images)
_read_generation: Final = envelope_reader(GenerationEnvelope)


def _open_images() -> PassedStream:
    """Images as they become clear."""
    return PassedStream(_is_completed)


def _is_completed(data: bytes) -> bool:
    """Its type stands before the picture or behind it."""
    end = max(0, len(data) - 4096)
    return _COMPLETED.search(data, 0, 4096) is not None or _COMPLETED.search(data, end) is not None


def _read_images(body: bytes) -> Answer:
    try:
        answer = _images.decode(body)
    except (msgspec.DecodeError, RecursionError):
        raise MalformedFault("the answer is not a list of images") from None
    return Answer(body, read_usage(answer.usage), tuple)


def _check_generation(envelope: Envelope) -> None:
    assert isinstance(envelope, GenerationEnvelope)
    check_text("prompt", envelope.prompt, MAX_PROMPT_CHARACTERS)
    check_choice("response_format", envelope.response_format, ANSWER_FORMATS)


def _plan_generation(call: Call, node: NodeEntry) -> Plan:
    return Plan(call.path, renamed(call), restoring(call, _read_images), _open_images)


def _plan_upload(call: Call, node: NodeEntry) -> Plan:
    return Plan(call.path, upload(call), restoring(call, _read_images), _open_images)


def _prompt_texts(body: bytes) -> Sequence[str]:
    envelope = _read_generation(body)
    assert isinstance(envelope, GenerationEnvelope)
    return (envelope.prompt,)


def _inspect_edit(call: Call) -> Sequence[str]:
    form = form_of(call)
    images = form.files("image", "image[]")
    if not images:
        raise parameter_invalid("image", "The form must hold a file 'image'.")
    if len(images) > MAX_IMAGES:
        raise parameter_invalid("image", f"The form holds {len(images)} images, but may hold at most {MAX_IMAGES}.")
    if not any(part.name == "prompt" and part.size for part in form.parts):
        raise parameter_invalid("prompt", "'prompt' must be a non-empty string.")
    check_choice("response_format", form.text("response_format"), ANSWER_FORMATS)
    for part in [*images, *form.files("mask")]:
        _check_image(part, png_only=call.asked_model == PNG_ONLY)
    return ()


def _inspect_variation(call: Call) -> Sequence[str]:
    form = form_of(call)
    check_choice("response_format", form.text("response_format"), ANSWER_FORMATS)
    _check_image(form.file("image"), png_only=True)
    return ()


def _check_image(part: Part, *, png_only: bool) -> None:
    """Raises: Refusal (400)."""
    limit = MAX_PNG_BYTES if png_only else MAX_IMAGE_BYTES
    media_type = image_type(part.head)
    if media_type is None or (png_only and media_type != "image/png"):
        wanted = "a PNG image" if png_only else "a PNG, JPEG, WebP or GIF image"
        raise parameter_invalid(part.name, f"The file '{part.name}' must be {wanted}.", "invalid_image")
    if part.size > limit:
        message = f"The file '{part.name}' has {part.size} bytes, but may have at most {limit // MIB} MB."
        raise parameter_invalid(part.name, message, "image_too_large")


GENERATIONS: Final = Api(
    kind="image",
    path="/v1/images/generations",
    capability="image",
    ranges={"n": Range(1, 10, integer=True)},
    plan=_plan_generation,
    prompt_texts=_prompt_texts,
    dialect=OPENAI,
    read_envelope=_read_generation,
    check=_check_generation,
)
EDITS: Final = Api(
    kind="image_edit",
    path="/v1/images/edits",
    capability="image",
    ranges={"n": Range(1, 10, integer=True)},
    plan=_plan_upload,
    prompt_texts=lambda body: (),
    dialect=OPENAI,
    read_form=read_form,
    inspect=_inspect_edit,
)
VARIATIONS: Final = replace(EDITS, kind="image_variation", path="/v1/images/variations", inspect=_inspect_variation)

APIS: Final = {api.path: api for api in (GENERATIONS, EDITS, VARIATIONS)}
