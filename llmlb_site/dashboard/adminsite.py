"""Django's admin with llmlb's name, colours, and the state of the fleet on its first page."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.apps import AdminConfig
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils.translation import gettext_lazy as _


class FleetAdminSite(admin.AdminSite):
    """The stock admin site; what differs is in templates/admin and static/css/admin.css."""

    site_title = _("llmlb admin")
    site_header = "llmlb"
    index_title = _("Administration")
    enable_nav_sidebar = True

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        # The admin site is made before the apps' models are loaded.
        from llmlb_site.dashboard import fleet, traffic

        state = {"fleet": fleet.fleet_summary(), "traffic": traffic.last_hour()}
        return super().index(request, {**state, **(extra_context or {})})


class FleetAdminConfig(AdminConfig):
    default_site = "llmlb_site.dashboard.adminsite.FleetAdminSite"
