"""Rerankings as a fake node answers them: the documents that share most words with the query come first."""

from __future__ import annotations

from typing import Any, Final

from nodes.fake.answers import Answer

PATHS: Final = frozenset({"/v1/rerank"})


class RankingAnswer(Answer):
    """`results` in Jina's and Cohere's shape."""

    @property
    def streams(self) -> bool:
        return False

    def document(self, *, finished: bool = True) -> Any:
        body = self.asked.body
        query = set(str(body.get("query")).split())
        scores = [len(query & set(str(text).split())) / len(query) for text in body.get("documents", ())]
        ranked = sorted(range(len(scores)), key=lambda index: -scores[index])[: body.get("top_n")]
        results = [{"index": index, "relevance_score": scores[index]} for index in ranked]
        usage = {"usage": {"prompt_tokens": 9, "total_tokens": 9}} if self.tells_usage else {}
        return {"model": self.asked.model, "object": "list", "results": results, **usage}
