from typing import Any

from django.apps import AppConfig
from django.conf import settings


class ServeConfig(AppConfig):
    name = "llmlb_site.serve"
    label = "serve"
    verbose_name = "Server"

    def ready(self) -> None:
        from llmlb_site.serve import checks

        checks.register_checks()
        if settings.LLMLB.scaled:
            from celery.signals import worker_init

            worker_init.connect(_prepare_worker)


def _prepare_worker(**signal: Any) -> None:
    from llmlb_site.serve.prepare import refuse_another_key

    if settings.LLMLB.redis_url is not None:
        refuse_another_key(settings.LLMLB.redis_url)
