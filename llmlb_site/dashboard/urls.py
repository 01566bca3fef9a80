"""The dashboard's pages."""

from django.urls import path

from llmlb_site.dashboard.views import actions, keys, language, models, nodes, overview

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
    path("models/", models.models, name="models"),
    path("models/providers", models.providers, name="providers"),
    path("models/register", models.register_model, name="model-register"),
    path("models/remove", models.remove_model, name="model-remove"),
    path("models/aliases/add", models.add_alias, name="alias-add"),
    path("models/aliases/remove", models.remove_alias, name="alias-remove"),
]
