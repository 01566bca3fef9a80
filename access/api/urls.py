"""`/api/auth/…`, `/api/users`, `/api/api-keys`, `/api/me/api-keys`, `/api/schema`. No path ends in a slash."""

from django.urls import path

from access.api import keys, views

urlpatterns = [
    path("auth/login", views.Login.as_view(), name="api-login"),
    path("auth/logout", views.Logout.as_view(), name="api-logout"),
    path("auth/me", views.Me.as_view(), name="api-me"),
    path("auth/change-password", views.ChangePassword.as_view(), name="api-change-password"),
    path("users", views.Users.as_view(), name="api-users"),
    path("users/<int:pk>", views.UserDetail.as_view(), name="api-user"),
    path("users/<int:pk>/reset-password", views.ResetPassword.as_view(), name="api-user-reset-password"),
    path("api-keys", keys.AllKeys.as_view(), name="api-keys"),
    path("api-keys/<int:pk>", keys.AnyKey.as_view(), name="api-key"),
    path("me/api-keys", keys.MyKeys.as_view(), name="api-my-keys"),
    path("me/api-keys/<int:pk>", keys.MyKey.as_view(), name="api-my-key"),
    path("schema", views.Schema.as_view(), name="api-schema"),
]
