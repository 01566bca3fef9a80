"""Embeddings in the encoding that the client asked for, whichever the node knows."""

from __future__ import annotations

import base64
import json
import math
import struct
import time
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from hypothesis import given
from hypothesis import strategies as st

from llmlb_site.lib.events import publish
from llmlb_site.lib.upstream.faults import MalformedFault
from models_catalog.models import ModelAlias
from nodes.fake_node import Behaviour
from routing.protocols.embeddings import read_vectors
from tests.routing.conftest import Fleet

EMBEDDINGS = "/v1/embeddings"


def answer_of(*vectors: Any, **more: Any) -> bytes:
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    return json.dumps({"object": "list", "data": data, "model": "m", **more}).encode()


def packed(*numbers: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def vectors_of(body: bytes, wanted: str) -> list[Any]:
    return [entry["embedding"] for entry in json.loads(read_vectors(body, wanted).body)["data"]]


floats = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=20)


@given(st.lists(floats, min_size=1, max_size=4))
def test_floats_become_base64_and_back_without_loss(vectors: list[list[float]]) -> None:
    told = read_vectors(answer_of(*vectors), "base64").body
    assert vectors_of(told, "base64") == [packed(*vector) for vector in vectors]
    assert vectors_of(told, "float") == vectors


def test_what_is_right_already_is_left_alone_to_the_byte() -> None:
    body = answer_of([1.0, 2.5]).replace(b", ", b" ,\n ")
    assert read_vectors(body, "float").body is body
    for wanted in ("base64", "ubinary"):
        other = answer_of(packed(1.0)).replace(b", ", b" ,\n ")
        assert read_vectors(other, wanted).body is other
    assert read_vectors(answer_of(), "base64").body == answer_of()


def test_only_the_vectors_are_changed() -> None:
    body = answer_of([1, 2.5], usage={"prompt_tokens": 2, "total_tokens": 2}, extra={"a": [1]})
    answer = read_vectors(body, "base64")
    assert json.loads(answer.body) == {**json.loads(body), "data": json.loads(answer_of(packed(1, 2.5)))["data"]}
    assert answer.tokens is not None
    assert answer.tokens.prompt == 2


def test_what_is_no_number_stays_none_in_either_encoding() -> None:
    (text,) = vectors_of(answer_of([1.0, None]), "base64")
    assert math.isnan(struct.unpack("<2f", base64.b64decode(text))[1])
    assert vectors_of(answer_of(packed(1.0, math.nan, math.inf)), "float") == [[1.0, None, None]]
    (huge,) = vectors_of(answer_of([1e300]), "base64")
    assert struct.unpack("<f", base64.b64decode(huge)) == (math.inf,)


@pytest.mark.parametrize("strange", [[[1.0, 2.0], [3.0, 4.0]], ["a"], {"a": 1}])
def test_what_has_no_base64_form_passes_as_it_is(strange: Any) -> None:
    assert vectors_of(answer_of(strange), "base64") == [strange]


@pytest.mark.parametrize("strange", ["not base64!", "AAA=", "AAAA"])
def test_what_is_no_list_of_float32_passes_as_it_is(strange: str) -> None:
    assert vectors_of(answer_of(strange), "float") == [strange]


@pytest.mark.parametrize("body", [b"", b"{}", b'{"data":7}', b"\xff", b"[]"])
def test_what_is_no_list_of_embeddings(body: bytes) -> None:
    with pytest.raises(MalformedFault):
        read_vectors(body, "base64")


def test_a_big_list_does_not_hold_up_the_others() -> None:
    vector = [number / 1536 for number in range(1536)]
    body = answer_of(*[vector] * 256)
    began = time.process_time()
    read_vectors(body, "base64")
    assert time.process_time() - began < 0.5, "about 0.02 s where it was written"


# --- through the gateway ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [None, "float", "base64"])
async def test_the_client_gets_the_encoding_it_asked_for(fleet: Fleet, known: str | None) -> None:
    await fleet.add("model-a", behaviour=Behaviour(encoding=known))
    plain = (await fleet.post(EMBEDDINGS, input=["a", "b"])).json()
    for wanted in ("float", "base64"):
        response = await fleet.post(EMBEDDINGS, input=["a", "b"], encoding_format=wanted)
        for entry, reference in zip(response.json()["data"], plain["data"], strict=True):
            vector = entry["embedding"]
            if wanted == "base64":
                vector = struct.unpack("<8f", base64.b64decode(vector))
            assert vector == pytest.approx(reference["embedding"])
    entry = (await fleet.settled(3))[2]
    assert (entry.kind, entry.prompt_tokens, entry.token_source) == ("embedding", 2, "usage")


async def test_with_an_alias(fleet: Fleet) -> None:
    await fleet.add("model-a", behaviour=Behaviour(encoding="float"))

    def name_it() -> None:
        ModelAlias.objects.create(alias="the-alias", model_id="model-a")
        publish("models")

    await sync_to_async(name_it)()
    for wanted in ("float", "base64"):
        response = await fleet.post(EMBEDDINGS, model="the-alias", input="a", encoding_format=wanted)
        assert response.json()["model"] == "the-alias"


async def test_an_encoding_that_is_none_is_refused(fleet: Fleet) -> None:
    await fleet.add("model-a")
    wrong: list[dict[str, Any]] = [{"encoding_format": 7}, {"dimensions": 0}]
    for values in wrong:
        response = await fleet.post(EMBEDDINGS, input="a", **values)
        assert response.status_code == 400
        assert response.json()["error"]["param"] == next(iter(values))
