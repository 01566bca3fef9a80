"""What nobody needs any more."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from django.contrib.sessions.models import Session
from django.db.models import Q
from django.utils import timezone

from access.models import SignInToken

KEPT_AFTER_END: Final = timedelta(days=30)


def prune_credentials() -> int:
    """Delete sign-in tokens that ended 30 days ago, and sessions that have expired. Returns how many rows went."""
    now = timezone.now()
    over = Q(revoked_at__lt=now - KEPT_AFTER_END) | Q(expires_at__lt=now - KEPT_AFTER_END)
    tokens, _ = SignInToken.objects.filter(over).delete()
    sessions, _ = Session.objects.filter(expire_date__lt=now).delete()
    return tokens + sessions
