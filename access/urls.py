"""Pages about people and keys."""

from django.urls import path

from access import views

urlpatterns = [
    path("login", views.sign_in, name="login"),
    path("logout", views.sign_out, name="logout"),
    path("account/password", views.change_password, name="password_change"),
    path("keys/", views.keys, name="keys"),
    path("keys/<int:pk>/revoke", views.revoke_key, name="key-revoke"),
    path("users/", views.users, name="users"),
    path("users/<int:pk>", views.change_user, name="user-change"),
    path("users/<int:pk>/reset-password", views.reset_password, name="user-reset-password"),
    path("users/<int:pk>/delete", views.delete_user, name="user-delete"),
]
