"""Requests and token totals over the API. No path ends in a slash."""

from django.urls import path

from history.api import views

urlpatterns = [
    path("dashboard/request-responses", views.Records.as_view(), name="api-request-responses"),
    path("dashboard/request-responses/export", views.Export.as_view(), name="api-request-responses-export"),
    path("dashboard/request-responses/<int:pk>", views.RecordView.as_view(), name="api-request-response"),
    path("dashboard/stats/tokens", views.TokenTotals.as_view(), name="api-tokens"),
    path("dashboard/stats/tokens/daily", views.DailyTotals.as_view(), name="api-tokens-daily"),
    path("dashboard/stats/tokens/monthly", views.MonthlyTotals.as_view(), name="api-tokens-monthly"),
]
