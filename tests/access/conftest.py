from __future__ import annotations

import uuid

import pytest
from django.core.cache import caches


@pytest.fixture(autouse=True)
def _nobody_has_tried_to_sign_in(monkeypatch: pytest.MonkeyPatch) -> None:
    # A prefix of its own for each test: clear() would empty the whole of a Redis that others use too.
    monkeypatch.setattr(caches["default"], "key_prefix", uuid.uuid4().hex)
