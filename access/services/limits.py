"""How much a key may use: what can be set, and setting it. What it means is `routing.core.limits`'s."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from django.utils.translation import gettext_lazy as _

from access.audit import Actor, record
from access.models import ApiKey, KeyLimit
from access.refusals import Invalid

NUMBERS: Final = (
    "requests_per_minute",
    "tokens_per_minute",
    "concurrent_requests",
    "tokens_per_day",
    "tokens_per_month",
)
LARGEST: Final = 10**12
MOST_LIMITS: Final = 100
LONGEST_MODEL_ID: Final = 300

Values = dict[str, Any]


def replace_limits(key: ApiKey, limits: Sequence[Mapping[str, Any]], *, actor: Actor) -> None:
    """Make these the limits of a key: each names a `model` (empty: over all) and any of `NUMBERS`.

    To be called in the transaction of whatever else changes, by whoever tells the gateways of it.

    Raises:
        Invalid: a number out of range, no number at all, a model twice.
    """
    wanted = [_checked(number, limit) for number, limit in enumerate(limits)]
    if len(wanted) > MOST_LIMITS:
        raise Invalid(_("A key has at most 100 limits."), field="limits")
    models = [limit["model"] for limit in wanted]
    for number, model in enumerate(models):
        if model in models[:number]:
            raise Invalid(_("There are two limits for the same model."), field=f"limits.{number}.model")
    ApiKey.objects.select_for_update().get(pk=key.pk)  # of two who set them at once the later one wins, whole
    before = [_values_of(limit) for limit in KeyLimit.objects.filter(key=key)]
    if sorted(before, key=_by_model) == sorted(wanted, key=_by_model):
        return
    KeyLimit.objects.filter(key=key).delete()
    KeyLimit.objects.bulk_create(KeyLimit(key=key, **limit) for limit in wanted)
    record("key.limits", actor=actor, target=str(key), details={"limits": [_short(limit) for limit in wanted]})


def _checked(number: int, limit: Mapping[str, Any]) -> Values:
    model = str(limit.get("model") or "").strip()
    if len(model) > LONGEST_MODEL_ID or not model.isprintable():
        raise Invalid(_("A model id has 1 to 300 characters."), field=f"limits.{number}.model")
    values: Values = {"model": model}
    for name in NUMBERS:
        value = limit.get(name)
        if value is not None and not 1 <= value <= LARGEST:
            text = _("A limit is a whole number from 1 to 1,000,000,000,000; none at all is an empty one.")
            raise Invalid(text, field=f"limits.{number}.{name}")
        values[name] = value
    if not _short(values).keys() - {"model"}:
        raise Invalid(_("Each limit needs at least one number."), field=f"limits.{number}")
    return values


def _values_of(limit: KeyLimit) -> Values:
    return {name: getattr(limit, name) for name in ("model", *NUMBERS)}


def _short(limit: Values) -> Values:
    """Without what is not limited."""
    return {name: value for name, value in limit.items() if value is not None}


def _by_model(limit: Values) -> str:
    return str(limit["model"])
