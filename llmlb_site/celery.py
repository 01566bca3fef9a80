"""The Celery application: `celery -A llmlb_site.celery worker`, and the same tasks embedded in `serve`."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmlb_site.settings")

app = Celery("llmlb")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
