from functools import partial
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
        if settings.LLMLB.redis_url is not None:
            from celery.signals import worker_init

            worker_init.connect(partial(_prepare_worker, settings.LLMLB.redis_url), weak=False)


def _prepare_worker(redis_url: str, **signal: Any) -> None:
    from llmlb_site.serve.prepare import refuse_another_key

    refuse_another_key(redis_url)
