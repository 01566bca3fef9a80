"""Everything that Django answers. `/v1/*` and the probes never come here: see asgi.py."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/", include("access.api.urls")),
    path("api/", include("nodes.api.urls")),
    path("api/", include("history.api.urls")),
    path("api/", include("llmlb_site.dashboard.api.urls")),
    path("", include("access.urls")),
    path("history/", include("history.urls")),
    path("", include("llmlb_site.dashboard.urls")),
]

handler400 = "llmlb_site.dashboard.errors.handler400"
handler403 = "llmlb_site.dashboard.errors.handler403"
handler404 = "llmlb_site.dashboard.errors.handler404"
handler500 = "llmlb_site.dashboard.errors.handler500"
