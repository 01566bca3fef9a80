"""The Celery application: `celery -A llmlb_site.celery worker`, and the same tasks embedded in `serve`."""

import os
import sys

from celery import Celery
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmlb_site.settings")

try:
    settings.LLMLB  # noqa: B018  # read now: `celery` would show the whole way to where a value is refused
except ImproperlyConfigured as error:
    sys.exit(f"llmlb: {error}")

app = Celery("llmlb")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
