"""Figures of the whole server. No path ends in a slash."""

from django.urls import path

from llmlb_site.dashboard.api import keys, views

urlpatterns = [
    path("version", views.Version.as_view(), name="api-version"),
    path("schema/v1", views.InferenceSchema.as_view(), name="api-schema-v1"),
    path("status", views.Status.as_view(), name="api-status"),
    path("metrics/cloud", views.CloudMetrics.as_view(), name="api-metrics-cloud"),
    path("api-keys/<int:pk>/usage", keys.AnyKeyUsage.as_view(), name="api-key-usage"),
    path("me/api-keys/<int:pk>/usage", keys.MyKeyUsage.as_view(), name="api-my-key-usage"),
    path("queue/stats", views.QueueStats.as_view(), name="api-queue-stats"),
    path("load-balancer/stats", views.BalancerStats.as_view(), name="api-balancer-stats"),
    path("dashboard/stats", views.Stats.as_view(), name="api-dashboard-stats"),
    path("dashboard/overview", views.Overview.as_view(), name="api-dashboard-overview"),
    path("dashboard/request-history", views.RequestHistory.as_view(), name="api-dashboard-request-history"),
]
