"""How pages write durations, sizes, ages and figures: `{% load llmlb %}`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from django import template
from django.utils import timezone
from django.utils.formats import date_format, number_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from llmlb_site.lib import svg

register = template.Library()
NOTHING: Final = "–"
_SIZES: Final = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
# As JavaScript's Intl.RelativeTimeFormat says it in its narrow style: app.js goes on counting in the same words.
_AGES: Final = (
    (86400, gettext_noop("%(number)sd ago")),
    (3600, gettext_noop("%(number)sh ago")),
    (60, gettext_noop("%(number)sm ago")),
    (1, gettext_noop("%(number)ss ago")),
)


@register.filter
def duration(milliseconds: float | None) -> str:
    """`0.4 ms`, `12 ms`, `3.2 s`, `2 min 5 s`."""
    if milliseconds is None:
        return NOTHING
    if milliseconds < 10:
        return f"{_number(milliseconds, 1)} ms"
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    if seconds < 60:
        return f"{_number(seconds, 1)} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


@register.filter
def size(count: float | None) -> str:
    """Bytes for people: `512 B`, `1.5 MiB`."""
    if count is None:
        return NOTHING
    for unit, name in _SIZES:
        if count >= unit:
            return f"{_number(count / unit, 1)} {name}"
    return f"{count:.0f} B"


@register.filter
def count(value: float | None) -> str:
    """A whole number with its thousands apart: `12,345`."""
    return NOTHING if value is None else number_format(round(value), force_grouping=True)


@register.filter
def compact(value: float | None) -> str:
    """A number that fits a card: `9,999`, `12.3 k`, `4.1 M`."""
    if value is None:
        return NOTHING
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 10_000 and value >= unit:
            return f"{_number(value / unit, 1)} {name}"
    return count(value)


@register.filter
def percent(share: float | None) -> str:
    """A share of 1 as `99.5 %`. All but a few is never rounded up to all."""
    if share is None:
        return NOTHING
    value = min(share * 100, 99.9) if share < 1 else 100.0
    return f"{_number(value, 0 if value in (0, 100) else 1)} %"


@register.filter
def ago(moment: datetime | None) -> SafeString | str:
    """How long ago, as a `<time>` that says when exactly; app.js keeps it counting."""
    if moment is None:
        return NOTHING
    seconds = max(0, int((timezone.now() - moment).total_seconds()))
    unit, text = next(((unit, text) for unit, text in _AGES if seconds >= unit), _AGES[-1])
    return format_html(
        '<time datetime="{}" title="{}" data-ago>{}</time>',
        moment.isoformat(),
        date_format(timezone.localtime(moment), "DATETIME_FORMAT"),
        _(text) % {"number": seconds // unit},
    )


@register.filter
def moment(value: datetime | None) -> SafeString | str:
    """A point in time as `<time>`: `2026-11-21 20:15:03 UTC`."""
    if value is None:
        return NOTHING
    return format_html(
        '<time datetime="{}">{}</time>',
        value.isoformat(),
        date_format(timezone.localtime(value), "DATETIME_FORMAT"),
    )


@register.simple_tag
def sparkline(values: Sequence[float | None], title: str, *, tall: bool = False) -> SafeString:
    return svg.sparkline(values, title=title, tall=tall)


@register.simple_tag
def bars(columns: Sequence[svg.Bar], title: str, description: str) -> SafeString:
    return svg.bars(columns, title=title, description=description)


@register.simple_tag
def slots(busy: int, limit: int) -> SafeString:
    """A node's places, the taken ones filled."""
    title = (
        _("%(busy)s of %(limit)s in flight") % {"busy": busy, "limit": limit}
        if limit
        else _("%(busy)s in flight, no limit") % {"busy": busy}
    )
    return svg.slots(busy, limit, title=title)


@register.simple_tag
def meter(value: float, limit: float, title: str) -> SafeString:
    return svg.meter(value, limit, title=title)


def _number(value: float, decimals: int) -> str:
    return number_format(value, decimal_pos=decimals)
