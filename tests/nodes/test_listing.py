"""What a model list is, and what it is not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.listing import ListedModel, NotAModelList, parse_listing


def ids(document: Any) -> list[str]:
    return [model.id for model in parse_listing(json.dumps(document).encode())]


def test_openai_form() -> None:
    assert ids({"object": "list", "data": [{"id": "b"}, {"id": "a"}]}) == ["b", "a"]


def test_ollama_form() -> None:
    assert ids({"models": [{"name": "llama3:8b", "model": "llama3:8b"}, {"name": "phi"}]}) == ["llama3:8b", "phi"]


def test_llama_cpp_has_both_forms() -> None:
    assert ids({"models": [{"name": "x"}], "data": [{"id": "y"}]}) == ["y"]


def test_entries_without_a_usable_id_are_skipped_and_doubles_collapse() -> None:
    entries: list[Any] = [{}, {"id": ""}, {"id": " "}, {"id": 7}, {"id": None}, "a", None, {"id": "a"}, {"id": "a"}]
    assert ids({"data": [*entries, {"id": "x" * 301}, {"id": "two\nlines"}]}) == ["a"]


@pytest.mark.parametrize("document", [{"data": []}, {"models": []}, {"object": "list", "data": None}, {"data": [{}]}])
def test_an_empty_list_is_a_list(document: Any) -> None:
    assert ids(document) == []


@pytest.mark.parametrize(
    "body",
    [b"", b"<!doctype html>", b"[]", b"null", b'"x"', b"{}", b'{"error": "no"}', b'{"data": null}', b'{"data": {}}'],
)
def test_not_a_model_list(body: bytes) -> None:
    with pytest.raises(NotAModelList):
        parse_listing(body)


def test_nesting_without_end_is_not_a_model_list() -> None:
    with pytest.raises(NotAModelList):
        parse_listing(b"[" * 100_000)


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"max_model_len": 32768}, 32768),
        ({"context_length": 8192}, 8192),
        ({"meta": {"n_ctx_train": 4096}}, 4096),
        ({"max_model_len": "many"}, None),
        ({"max_model_len": True}, None),
        ({"max_model_len": -1}, None),
        ({"max_model_len": 2**40}, None),
        ({"meta": None}, None),
    ],
)
def test_context_length(extra: dict[str, Any], expected: int | None) -> None:
    body = json.dumps({"data": [{"id": "m", "owned_by": "vllm", **extra}]}).encode()
    assert parse_listing(body) == (ListedModel("m", "vllm", expected),)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(["data", "models", "id", "name"]) | st.text(), inner)
        ),
        max_leaves=20,
    )
)
def test_any_json_gives_unique_ids_or_is_no_list(document: Any) -> None:
    try:
        found = ids(document)
    except NotAModelList:
        return
    assert len(found) == len(set(found))
    assert all(found)
