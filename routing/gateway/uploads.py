"""Step 2 where the client uploads a form: it is understood as it comes, and never held in memory whole."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from llmlb_site.lib.multipart import MultipartReader, NotAForm, boundary_of
from routing.core.errors import Refusal, body_too_large, form_invalid, media_type_wrong, upload_not_kept
from routing.core.form import Form
from routing.gateway.exchange import Exchange, Receive
from routing.gateway.intake import COURTESY_BYTES, ClientGone, discard, refuse_declared
from routing.gateway.spool import Spool
from routing.protocols.base import Api, Call

log = logging.getLogger("llmlb.gateway")

FORM: Final = "multipart/form-data"
# The limit is for what is uploaded; boundaries, names and fields may come on top of it.
AROUND_BYTES: Final = 64 * 1024


class Incoming:
    """The body of a request as it comes."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.more = True

    async def read(self) -> bytes:
        """Raises: ClientGone."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        self.more = message.get("more_body", False)
        data: bytes = message.get("body", b"")
        return data

    async def discard(self) -> None:
        """So that the client, which is still sending, gets to read why its request is refused."""
        if self.more:
            await discard(self._receive, COURTESY_BYTES)


async def read_form(exchange: Exchange, limit: int, directory: Path | None) -> Form:
    """The form that is uploaded; its bytes are in `exchange.upload`, which is to be closed.

    Raises: Refusal (413; 415; 400 for what is no form; 503 where it could not be stored), ClientGone.
    """
    await refuse_declared(exchange, limit, around=AROUND_BYTES)
    incoming = Incoming(exchange.receive)
    spool = exchange.upload = Spool(directory)
    try:
        reader = MultipartReader(_boundary(exchange))
        while incoming.more:
            data = await incoming.read()
            if spool.length + len(data) > limit + AROUND_BYTES:
                raise body_too_large(limit)
            reader.feed(data)
            await spool.write(data)
        await spool.finish()
        return Form(reader.finish(), spool)
    except (NotAForm, OSError, Refusal) as error:
        await incoming.discard()
        raise _refusal(error) from None


def understand(exchange: Exchange, api: Api, form: Form) -> Call:
    """What is asked of which model. Raises: Refusal (400)."""
    assert api.read_form is not None
    envelope = api.read_form(form)
    return Call(exchange.path, b"", envelope, asked_model=envelope.model, model=envelope.model, form=form)


def _refusal(error: NotAForm | OSError | Refusal) -> Refusal:
    if isinstance(error, Refusal):
        return error
    if isinstance(error, NotAForm):
        return form_invalid(str(error))
    log.error("an upload could not be stored: %s", error.strerror)
    return upload_not_kept()


def _boundary(exchange: Exchange) -> bytes:
    content_type = exchange.headers.get(b"content-type", b"")
    if content_type.partition(b";")[0].strip().lower() != FORM.encode():
        raise media_type_wrong(exchange.path, FORM)
    return boundary_of(content_type)
