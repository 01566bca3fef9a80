"""Reranking passes through, with its body checked as far as that is certain."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nodes.fake_node import Behaviour
from tests.routing.conftest import Fleet, eventually

RERANK = "/v1/rerank"
ASKED: dict[str, Any] = {"query": "red cars", "documents": ["blue sea", "red cars", "cars"]}


async def test_what_the_node_ranks_is_what_the_client_gets(fleet: Fleet) -> None:
    node = await fleet.add("bge-reranker-base")
    response = await fleet.post(RERANK, model="bge-reranker-base", **ASKED, top_n=2, return_documents=False)
    assert [(entry["index"], entry["relevance_score"]) for entry in response.json()["results"]] == [(1, 1.0), (2, 0.5)]
    assert json.loads(node.inferences[0].body)["return_documents"] is False
    (entry,) = await fleet.settled()
    assert (entry.kind, entry.prompt_tokens, entry.token_source) == ("rerank", 9, "usage")


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"query": None}, "query"),
        ({"query": ""}, "query"),
        ({"query": 7}, "query"),
        ({"documents": None}, "documents"),
        ({"documents": []}, "documents"),
        ({"documents": "one"}, "documents"),
        ({"top_n": 0}, "top_n"),
    ],
)
async def test_what_is_certainly_no_request_to_rerank(fleet: Fleet, values: dict[str, Any], param: str) -> None:
    node = await fleet.add("bge-reranker-base")
    response = await fleet.post(RERANK, model="bge-reranker-base", **{**ASKED, **values})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert not node.inferences


@pytest.mark.parametrize("documents", [[{"text": "a"}], {"content": [{"type": "text", "text": "a"}]}])
async def test_documents_of_more_than_text(fleet: Fleet, documents: Any) -> None:
    await fleet.add("bge-reranker-base", behaviour=Behaviour(tells_usage=False))
    response = await fleet.post(RERANK, model="bge-reranker-base", query="what is it", documents=documents)
    assert response.status_code == 200
    (entry,) = await fleet.settled()
    assert entry.token_source == "estimated"


async def test_a_model_that_cannot(fleet: Fleet) -> None:
    await fleet.add("llama-3-instruct")
    response = await fleet.post(RERANK, model="llama-3-instruct", **ASKED)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "model_capability_mismatch")


async def test_a_node_that_answers_something_else_is_replaced(fleet: Fleet) -> None:
    await fleet.add("bge-reranker-base", behaviour=Behaviour(mode="not_json"))
    await fleet.add("bge-reranker-base")
    for _ in range(2):
        assert (await fleet.post(RERANK, model="bge-reranker-base", **ASKED)).status_code == 200
    await eventually(fleet.excluded)
