"""The dashboard's pages."""

from django.urls import path

from llmlb_site.dashboard.views import actions, keys, language, models, node_models, nodes, overview

urlpatterns = [
    path("", overview.overview, name="overview"),
    path("dashboard", overview.dashboard, name="dashboard"),
    path("language", language.language, name="set_language"),
    path("nodes/", nodes.nodes, name="nodes"),
    path("nodes/add", nodes.add_node, name="node-add"),
    path("nodes/<int:pk>/", nodes.node, name="node"),
    path("nodes/<int:pk>/change", nodes.change_node, name="node-change"),
    path("nodes/<int:pk>/delete", nodes.delete_node, name="node-delete"),
    path("nodes/<int:pk>/actions/<slug:action>", actions.node_action, name="node-action"),
    path("keys/<int:pk>/", keys.key, name="key"),
    path("nodes/<int:pk>/downloads", node_models.downloads, name="node-downloads"),
    path("nodes/<int:pk>/download", node_models.start_download, name="node-download"),
    path("nodes/<int:pk>/downloads/<int:download>/cancel", node_models.cancel_download, name="node-download-cancel"),
    path("nodes/<int:pk>/models/delete", node_models.delete_model, name="node-model-delete"),
    path("nodes/<int:pk>/logs", node_models.logs, name="node-logs"),
    path("models/", models.models, name="models"),
    path("models/providers", models.providers, name="providers"),
    path("models/register", models.register_model, name="model-register"),
    path("models/remove", models.remove_model, name="model-remove"),
    path("models/aliases/add", models.add_alias, name="alias-add"),
    path("models/aliases/remove", models.remove_alias, name="alias-remove"),
]
