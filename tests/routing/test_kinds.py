"""The history offers every kind of request that there is as a filter."""

from __future__ import annotations

from history.choices import KINDS
from routing.protocols.registry import APIS


def test_every_apis_kind_can_be_filtered_by() -> None:
    assert {api.kind for api in APIS.values()} <= set(KINDS)
