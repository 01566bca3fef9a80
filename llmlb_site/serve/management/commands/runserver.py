from __future__ import annotations

from typing import Any

from daphne.management.commands.runserver import Command as DaphneRunserver
from django.conf import settings

from llmlb_site.celery import app
from llmlb_site.serve.embedded import EmbeddedCelery


class Command(DaphneRunserver):  # type: ignore[misc]  # untyped base
    help = "Daphne's development server, which starts again when code changes, with the embedded worker beside it."

    def inner_run(self, *args: Any, **options: Any) -> None:
        if settings.LLMLB.scaled:
            super().inner_run(*args, **options)
            return
        celery = EmbeddedCelery(app)
        celery.start()
        try:
            super().inner_run(*args, **options)
        finally:
            celery.stop()
