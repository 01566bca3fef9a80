"""The history's pages, under /history/."""

from django.urls import path

from history import views

urlpatterns = [
    path("", views.history, name="history"),
    path("export", views.export_history, name="history-export"),
    path("<int:pk>", views.detail, name="history-detail"),
]
