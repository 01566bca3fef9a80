"""Requests that name one model to the gateway and another to the node: the model checked is the model sent."""

from __future__ import annotations

import json
from typing import Any, Final

import httpx

from tests.drills.conftest import Drill, MakeNodeProcess
from tests.drills.fleet import routed
from tests.support.product import Product

ALLOWED: Final = "model-a"
OTHER: Final = "model-b"
REST: Final = '"messages": [{"role": "user", "content": "Hello"}]'
LONG: Final = '"x": ["' + "y" * 200_000 + '"], '
# Bodies that some reader of JSON takes for a request for the other model.
BODIES: Final[dict[str, str]] = {
    "twice, the other first": f'{{"model": "{OTHER}", {REST}, "model": "{ALLOWED}"}}',
    "twice, the other last": f'{{"model": "{ALLOWED}", {REST}, "model": "{OTHER}"}}',
    "twice, far apart": f'{{"model": "{ALLOWED}", {LONG}{REST}, "model": "{OTHER}"}}',
    "escaped, last": f'{{"model": "{ALLOWED}", {REST}, "\\u006dodel": "{OTHER}"}}',
    "escaped, first": f'{{"mode\\u006C": "{OTHER}", {REST}, "model": "{ALLOWED}"}}',
    "both escaped": f'{{"mode\\u006c": "{ALLOWED}", {REST}, "m\\u006fdel": "{OTHER}"}}',
    "in another case (Go reads it)": f'{{"model": "{ALLOWED}", {REST}, "Model": "{OTHER}"}}',
    "in another case, escaped": f'{{"model": "{ALLOWED}", {REST}, "\\u004dODEL": "{OTHER}"}}',
    "after a byte order mark": f'\ufeff{{"model": "{ALLOWED}", {REST}, "model": "{OTHER}"}}',
    "a value of two": f'{{"model": ["{ALLOWED}", "{OTHER}"], {REST}}}',
    "a second document": f'{{"model": "{ALLOWED}", {REST}}}{{"model": "{OTHER}", {REST}}}',
}
# Fields of a form: the rest of Content-Disposition, and the value.
FORMS: Final[dict[str, list[tuple[str, str]]]] = {
    "two fields": [('name="model"', ALLOWED), ('name="model"', OTHER)],
    "two fields, one quoted otherwise": [('name="model"', ALLOWED), ("name=model", OTHER)],
    "two names of one field": [('name="model"', ALLOWED), ('name="x"; name="model"', OTHER)],
    "an escaped name": [('name="model"', ALLOWED), ('name="mo\\del"', OTHER)],
    "an extended name": [('name="model"', ALLOWED), ("name=\"x\"; name*=utf-8''model", OTHER)],
    "a file that is the model": [('name="model"', ALLOWED), ('name="model"; filename="m"', OTHER)],
    "a form in the form": [('name="model"', ALLOWED), ('name="x"\r\nContent-Type: multipart/mixed; boundary=q', "")],
}
# These name the other model where nobody takes it for the model of the request.
INNOCENT: Final[dict[str, str]] = {
    "deeper inside": f'{{"model": "{ALLOWED}", {REST}, "metadata": {{"model": "{OTHER}"}}}}',
    "in the text": f'{{"model": "{ALLOWED}", {REST.replace("Hello", "the Model")}, "user": "\\u0020model"}}',
}


def restricted_key(product: Product) -> str:
    """A key that may use one of the two models."""
    asked = {"name": "one model", "permissions": ["openai.inference"], "allowed_models": [ALLOWED]}
    answer = product.post("/api/api-keys", json=asked)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["key"])


def send(product: Product, key: str, path: str, content: bytes, media_type: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": media_type}
    return product.post(path, content=content, headers=headers)


def form_of(fields: list[tuple[str, str]]) -> bytes:
    nested = f'--q\r\nContent-Disposition: form-data; name="model"\r\n\r\n{OTHER}\r\n--q--\r\n'
    parts = [*fields, ('name="file"; filename="a.wav"', "RIFF")]
    pieces = [f"--b\r\nContent-Disposition: form-data; {rest}\r\n\r\n{value or nested}\r\n" for rest, value in parts]
    return ("".join(pieces) + "--b--\r\n").encode()


def test_the_model_that_is_checked_is_the_model_that_is_sent(
    one_product: Product, node_process: MakeNodeProcess, drill: Drill
) -> None:
    node = node_process((ALLOWED, OTHER, "whisper-a"))
    routed(one_product, node)
    key = restricted_key(one_product)
    before: int = node.state()["inferences"]
    through: list[tuple[str, Any]] = []
    for name, body in BODIES.items():
        answer = send(one_product, key, "/v1/chat/completions", body.encode(), "application/json")
        through += [(name, answer.status_code)] if answer.status_code != 400 else []
    for name, fields in FORMS.items():
        answer = send(one_product, key, "/v1/audio/transcriptions", form_of(fields), "multipart/form-data; boundary=b")
        through += [(name, answer.status_code)] if answer.status_code != 400 else []
    reached = node.state()["inferences"] - before
    count = len(BODIES) + len(FORMS)
    drill.record(
        "requests that name a second model: twice, escaped, in other spellings, in forms",
        f"{count - len(through)} of {count} refused with 400, {reached} reached a node {through or ''}".strip(),
        goal="all refused",
        ok=not through and not reached,
    )
    for name, body in INNOCENT.items():
        answer = send(one_product, key, "/v1/chat/completions", body.encode(), "application/json")
        assert answer.status_code == 200, (name, answer.text)
        assert answer.json()["model"] == json.loads(body)["model"]
