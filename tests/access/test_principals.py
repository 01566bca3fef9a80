"""What the gateway's key table is made of, and how use flows back."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.utils import timezone

from access import keys, services
from access.audit import SYSTEM
from access.models import ApiKey, User
from access.permissions import Permission
from access.queries import live_principals
from tests.conftest import MintKey


def test_a_row_has_all_that_a_check_needs(ken: User, mint_key: MintKey) -> None:
    end = timezone.now() + timedelta(days=1)
    key, text = mint_key(ken, Permission.INFERENCE, name="ci", allowed_models=["a"], expires_at=end)

    (row,) = live_principals()

    parts = keys.split(text)
    assert parts is not None
    assert (row.key_id, row.public_id, row.name, row.owner_id) == (key.pk, parts[0], "ci", ken.pk)
    assert row.digest == keys.digest(parts[1])
    assert (row.permissions, row.allowed_models, row.expires_at) == (frozenset({Permission.INFERENCE}), ("a",), end)
    assert (row.owner_active, row.revoked, row.enabled) == (True, False, True)


def test_revoked_ones_are_left_out_and_a_permission_that_is_gone_counts_for_nothing(
    ken: User, mint_key: MintKey
) -> None:
    gone, _ = mint_key(ken)
    old, _ = mint_key(ken, Permission.INFERENCE)
    ApiKey.objects.filter(pk=old.pk).update(permissions=["openai.inference", "users.manage", "of an older release"])
    services.revoke_api_key(gone, actor=SYSTEM)

    (row,) = live_principals()

    assert (row.key_id, row.permissions) == (old.pk, frozenset({Permission.INFERENCE}))


def test_it_is_one_query_and_one_for_the_limits(ken: User, mint_key: MintKey, django_assert_num_queries: Any) -> None:
    for _ in range(10):
        mint_key(ken)

    with django_assert_num_queries(2):
        assert len(list(live_principals())) == 10


def test_use_of_many_keys_is_noted_at_once(ken: User, mint_key: MintKey, django_assert_num_queries: Any) -> None:
    ids = [mint_key(ken)[0].public_id for _ in range(10)]
    now = timezone.now()

    with django_assert_num_queries(1):
        services.note_used([*ids, "unknown"], now)

    assert set(ApiKey.objects.values_list("last_used_at", flat=True)) == {now}
