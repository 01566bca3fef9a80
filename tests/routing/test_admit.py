"""Which limits a request counts on, as the names of models change."""

from __future__ import annotations

from routing.core.limits import KeyLimits, Limit
from routing.core.table import RoutingTable
from routing.gateway.admit import find_applying


def test_an_alias_that_stands_for_another_model_has_its_limits() -> None:
    overall, of_alias, of_model = Limit(1), Limit(1, "chat"), Limit(1, "llama")
    limits = KeyLimits((overall,), (of_alias, of_model))
    before = RoutingTable(known=frozenset({"llama", "qwen"}), aliases={"chat": "llama"})
    after = RoutingTable(known=frozenset({"llama", "qwen"}), aliases={"chat": "qwen"})
    for _ in range(2):
        assert find_applying(limits, "chat", before) == (overall, of_alias, of_model)
        assert find_applying(limits, "llama", before) == (overall, of_alias, of_model)
        assert find_applying(limits, "chat", after) == (overall, of_alias)
        assert find_applying(limits, "qwen", after) == (overall, of_alias)
        assert find_applying(limits, "llama", after) == (overall, of_model)


def test_keys_do_not_get_each_others_limits() -> None:
    table = RoutingTable()
    one, other = (KeyLimits((), (Limit(key, "m"),)) for key in (1, 2))
    assert [each.key_id for each in find_applying(one, "m", table)] == [1]
    assert [each.key_id for each in find_applying(other, "m", table)] == [2]
    assert len(table.applying) == 2


def test_names_that_clients_make_up_are_not_kept() -> None:
    table = RoutingTable(known=frozenset({"m"}))
    limits = KeyLimits((Limit(1),), (Limit(1, "m"),))
    for number in range(100):
        assert find_applying(limits, f"made-up-{number}", table) == limits.overall
    assert not table.applying
