from django.apps import AppConfig


class LibConfig(AppConfig):
    name = "llmlb_site.lib"
    label = "lib"
    verbose_name = "Shared"
    default_auto_field = "django.db.models.BigAutoField"
