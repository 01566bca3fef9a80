from django.apps import AppConfig


class ServeConfig(AppConfig):
    name = "llmlb_site.serve"
    label = "serve"
    verbose_name = "Server"

    def ready(self) -> None:
        from llmlb_site.serve import checks

        checks.register_checks()
