"""What every API that takes an upload says of its form."""

from __future__ import annotations

from llmlb_site.lib.upstream.base import BodySource
from routing.core.errors import model_missing
from routing.core.form import Form
from routing.protocols.base import Call, Envelope


def read_form(form: Form) -> Envelope:
    """The envelope of a form. Raises: Refusal (400), where it names no model, or two."""
    model = form.text("model")
    if model is None or not model.strip():
        raise model_missing()
    return Envelope(model=model, stream=form.flag("stream"), temperature=form.number("temperature"), n=form.number("n"))


def form_of(call: Call) -> Form:
    """The form of a call to an API that takes one."""
    assert call.form is not None
    return call.form


def upload(call: Call) -> BodySource:
    """The client's own bytes, with the model that is meant where it used an alias."""
    form = form_of(call)
    return form.replaced("model", call.model.encode()) if call.renamed else form.storage
