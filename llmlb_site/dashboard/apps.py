from django.apps import AppConfig


class DashboardConfig(AppConfig):
    name = "llmlb_site.dashboard"
    label = "dashboard"
