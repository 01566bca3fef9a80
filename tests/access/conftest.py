from __future__ import annotations

import pytest
from django.conf import settings
from django.core.cache import cache


@pytest.fixture(autouse=True)
def _nobody_has_tried_to_sign_in() -> None:
    if settings.LLMLB.redis_url is None:  # a Redis is shared, and clear() would empty all of it
        cache.clear()
