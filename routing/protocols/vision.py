"""Pictures in a conversation: checked before a node is asked, and passed on untouched (SPEC-e03a404c).

A picture is a part of a message: in chat an `image_url`, in Responses an `input_image`, in Anthropic's API an `image`.
What lies behind an http address is the node's affair; it is not fetched here.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from routing.core import document
from routing.core.errors import Refusal, body_invalid, parameter_invalid
from routing.core.media import image_type
from routing.protocols.base import Call

VISION: Final = "vision"
MAX_CHAT_IMAGES: Final = 10
MAX_IMAGES: Final = 100
MAX_IMAGE_BYTES: Final = 10 * 1024 * 1024
TYPES: Final = frozenset({"image/png", "image/jpeg", "image/jpg", "image/gif", "image/webp"})
_HEAD_CHARACTERS: Final = 64
_DATA: Final = "data:"


class Picture(NamedTuple):
    """One picture: its declared type, and its Base64, which is `text` from `start`; no text where it is referred to.

    It is megabytes, and stays where it is.
    """

    media_type: str = ""
    text: str | None = None
    start: int = 0


def inspector(mark: bytes, member: str, most: int) -> Callable[[Call], Sequence[str]]:
    """The `inspect` of an API whose conversations stand in `member` and whose pictures have `mark` in them.

    A request without it costs a search, and nothing else.
    """

    def inspect(call: Call) -> Sequence[str]:
        if not document.is_mentioned(call.body, mark):
            return ()
        try:
            return check_pictures(msgspec.json.decode(call.body).get(member), member, most)
        except RecursionError:
            raise body_invalid("The request body is nested too deeply.") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:  # in a text that the envelope passes over
            raise body_invalid(f"The request body is not valid JSON: {error}.") from None

    return inspect


def check_pictures(conversation: Any, member: str, most: int) -> Sequence[str]:
    """What the model must be able to do for a conversation, beyond text: nothing, or to see.

    Raises: Refusal (400): a picture that is none, or too large, or too many of them.
    """
    count = 0
    for picture in _pictures(conversation, member):
        count += 1
        if picture.text is not None:
            _check(picture.media_type, picture.text, picture.start, member)
    if count > most:
        message = f"The request has {count} images, but may have at most {most}."
        raise parameter_invalid(member, message, "too_many_images")
    return (VISION,) if count else ()


def _pictures(value: Any, member: str) -> Iterator[Picture]:
    """Every picture, however deep: in messages, their content, and the results of tools."""
    if isinstance(value, list):
        for item in value:
            yield from _pictures(item, member)
    elif isinstance(value, dict):
        kind = value.get("type")
        if kind in ("image_url", "input_image"):
            yield _openai_picture(value, member)
        elif kind == "image":
            yield _anthropic_picture(value, member)
        else:
            for name in ("content", "output"):
                yield from _pictures(value.get(name), member)


def _openai_picture(part: dict[str, Any], member: str) -> Picture:
    given = part.get("image_url")
    url = given.get("url") if isinstance(given, dict) else given
    if url is None and isinstance(part.get("file_id"), str):
        return Picture()
    if not isinstance(url, str):
        raise _invalid(member, "An image part must have an 'image_url' with a 'url'.")
    if url.startswith(("http:", "https:")):
        return Picture()
    comma = url.find(",")
    media_type, _, encoding = url[len(_DATA) : max(0, comma)].rpartition(";")
    if not url.startswith(_DATA) or encoding != "base64":
        raise _invalid(member, "An image must be given as an http(s) URL or as 'data:image/…;base64,…'.")
    return Picture(media_type, url, comma + 1)


def _anthropic_picture(part: dict[str, Any], member: str) -> Picture:
    source = part.get("source")
    if not isinstance(source, dict):
        raise _invalid(member, "An image part must have a 'source'.")
    if source.get("type") != "base64":
        return Picture()
    media_type, data = source.get("media_type"), source.get("data")
    if not isinstance(media_type, str) or not isinstance(data, str):
        raise _invalid(member, "An image source of type 'base64' must have a 'media_type' and 'data'.")
    return Picture(media_type, data)


def _check(media_type: str, text: str, start: int, member: str) -> None:
    last = text[max(start, len(text) - 4) :]
    padding = len(last) - len(last.rstrip("="))
    size = (len(text) - start - padding) * 3 // 4
    if size > MAX_IMAGE_BYTES:
        message = f"An image has {size} bytes, but may have at most {MAX_IMAGE_BYTES // 1024 // 1024} MB."
        raise parameter_invalid(member, message, "image_too_large")
    if media_type.lower() not in TYPES or image_type(_head(text, start)) is None:
        raise _invalid(member, "An image must be a PNG, JPEG, GIF or WebP image, in Base64.")


def _head(text: str, start: int) -> bytes:
    head = text[start : start + _HEAD_CHARACTERS]
    try:
        return base64.b64decode(head[: len(head) // 4 * 4], validate=True)
    except (binascii.Error, ValueError):
        return b""


def _invalid(member: str, message: str) -> Refusal:
    return parameter_invalid(member, message, "invalid_image")


inspect_chat: Final = inspector(b'"image_url"', "messages", MAX_CHAT_IMAGES)
inspect_responses: Final = inspector(b'"input_image"', "input", MAX_IMAGES)
inspect_messages: Final = inspector(b'"image"', "messages", MAX_IMAGES)
