from django.apps import AppConfig
from django.conf import settings


class LibConfig(AppConfig):
    name = "llmlb_site.lib"
    label = "lib"
    verbose_name = "Shared"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """What a worker or a command changes is news to the gateways, too; these also listen (`runtime.py`)."""
        if settings.LLMLB.redis_url:
            from llmlb_site.lib.events import set_relay
            from llmlb_site.lib.relay import RedisRelay

            set_relay(RedisRelay(settings.LLMLB.redis_url).send)
