"""`/api/nodes`, and the same views at `/api/endpoints`, the name that upstream's scripts know."""

from django.urls import URLPattern, path

from nodes.api import downloads, views


def _paths(word: str) -> list[URLPattern]:
    one = f"{word}/<int:pk>"
    return [
        path(word, views.Nodes.as_view(), name=f"api-{word}"),
        path(one, views.NodeView.as_view(), name=f"api-{word}-detail"),
        path(f"{one}/models", views.NodeModels.as_view(), name=f"api-{word}-models"),
        path(f"{one}/test", views.TestNode.as_view(), name=f"api-{word}-test"),
        path(f"{one}/sync", views.SyncNode.as_view(), name=f"api-{word}-sync"),
        path(f"{one}/re-register", views.Reregister.as_view(), name=f"api-{word}-re-register"),
        path(f"{one}/drain", views.Drain.as_view(), name=f"api-{word}-drain"),
        path(f"{one}/resume", views.Resume.as_view(), name=f"api-{word}-resume"),
        path(f"{one}/reinclude", views.Reinclude.as_view(), name=f"api-{word}-reinclude"),
        path(f"{one}/download", downloads.StartDownload.as_view(), name=f"api-{word}-download"),
        path(f"{one}/download/progress", downloads.DownloadProgress.as_view(), name=f"api-{word}-download-progress"),
        path(f"{one}/download/<int:task>", downloads.CancelDownload.as_view(), name=f"api-{word}-download-cancel"),
        path(f"{one}/models/delete", downloads.DeleteModel.as_view(), name=f"api-{word}-models-delete"),
        path(f"{one}/logs", downloads.Logs.as_view(), name=f"api-{word}-logs"),
    ]


urlpatterns = [*_paths("nodes"), *_paths("endpoints")]
