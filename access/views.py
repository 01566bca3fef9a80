"""Pages: sign-in, one's password, API keys, and people."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth import login, logout, update_session_auth_hash
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render, resolve_url
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from access import queries, services
from access.audit import record
from access.callers import actor_of, address_of, person_of
from access.forms import KeyForm, NewUserForm, PasswordForm, RefusableForm, SignInForm, UserForm
from access.models import User
from access.permissions import Role
from access.refusals import Refusal
from access.rules import page, public

PAGE_METHODS = ["GET", "HEAD", "POST"]


@public
@never_cache
@sensitive_post_parameters("password")
@require_http_methods(PAGE_METHODS)
def sign_in(request: HttpRequest) -> HttpResponse:
    """The sign-in page. Someone who is signed in goes where they wanted to."""
    if request.user.is_authenticated:
        return redirect(_destination(request, request.GET.get("next", "")))
    form = SignInForm(request.POST or None, initial={"next": request.GET.get("next", "")})
    status = 200
    if request.method == "POST" and form.is_valid():
        try:
            return _let_in(request, form)
        except Refusal as refusal:
            form.refuse(refusal)
            status = refusal.status
    return render(request, "access/sign_in.html", {"form": form}, status=status)


@page(Role.VIEWER)
@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    logout(request)
    return redirect("login")


@page(Role.VIEWER)
@never_cache
@sensitive_post_parameters()
@require_http_methods(PAGE_METHODS)
def change_password(request: HttpRequest) -> HttpResponse:
    """One's own password: because one wants to, or because it was given and must be changed first."""
    user = person_of(request)
    form = PasswordForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        try:
            services.change_password(
                user, current=values["current_password"], new=values["new_password"], actor=actor_of(request)
            )
        except Refusal as refusal:
            form.refuse(refusal)
        else:
            update_session_auth_hash(request, user)
            messages.success(request, _("The password is changed. Other sessions are signed out."))
            return redirect("overview")
    frame = "base_alone.html" if user.must_change_password else "base.html"
    return render(request, "access/password.html", {"form": form, "frame": frame}, status=_status_of(form))


@page(Role.VIEWER)
@never_cache
@require_http_methods(PAGE_METHODS)
def keys(request: HttpRequest) -> HttpResponse:
    """One's API keys (an administrator: everyone's), and a form for a new one, which is shown in this answer only."""
    user = person_of(request)
    form = KeyForm(request.POST or None, owner=user)
    minted: dict[str, Any] = {}
    if request.method == "POST" and form.is_valid():
        try:
            key, text = services.mint_api_key(
                owner=user,
                name=form.cleaned_data["name"],
                permissions=form.cleaned_data["permissions"],
                expires_at=form.expires_at,
                allowed_models=form.models,
                actor=actor_of(request),
            )
        except Refusal as refusal:
            form.refuse(refusal)
        else:
            minted, form = {"minted": key, "text": text}, KeyForm(owner=user)
    return render(request, "access/keys.html", {"form": form, **_key_list(request), **minted}, status=_status_of(form))


@page(Role.VIEWER)
@require_http_methods(PAGE_METHODS)
def revoke_key(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask, then revoke."""
    user = person_of(request)
    reachable = queries.all_keys() if user.as_role is Role.ADMINISTRATOR else queries.keys_of(user)
    key = get_object_or_404(reachable, pk=pk)
    if request.method != "POST":
        return render(request, "access/revoke_key.html", {"key": key})
    services.revoke_api_key(key, actor=actor_of(request))
    messages.success(request, _("The key “%s” is revoked.") % key.name)
    return redirect("keys")


@page(Role.ADMINISTRATOR)
@never_cache
@require_http_methods(PAGE_METHODS)
def users(request: HttpRequest) -> HttpResponse:
    """Everyone, and a form for a new one. A generated password is shown in this answer only."""
    form = NewUserForm(request.POST or None)
    created: dict[str, Any] = {}
    if request.method == "POST" and form.is_valid():
        try:
            user, password = services.create_user(**form.cleaned_data, actor=actor_of(request))
        except Refusal as refusal:
            form.refuse(refusal)
        else:
            created, form = {"person": user, "password": password}, NewUserForm()
    people = User.objects.order_by("username")
    return render(request, "access/users.html", {"form": form, "people": people, **created}, status=_status_of(form))


@page(Role.ADMINISTRATOR)
@require_http_methods(PAGE_METHODS)
def change_user(request: HttpRequest, pk: int) -> HttpResponse:
    person = get_object_or_404(User, pk=pk)
    now = {"username": person.username, "role": person.role, "is_active": person.is_active}
    form = UserForm(request.POST if request.method == "POST" else None, initial=now)
    if request.method == "POST" and form.is_valid():
        try:
            services.update_user(person, actor=actor_of(request), **form.cleaned_data)
        except Refusal as refusal:
            form.refuse(refusal)
        else:
            messages.success(request, _("%s is changed.") % person.username)
            return redirect("users")
        person.refresh_from_db()
    return render(request, "access/user.html", {"form": form, "person": person}, status=_status_of(form))


@page(Role.ADMINISTRATOR)
@never_cache
@require_POST
def reset_password(request: HttpRequest, pk: int) -> HttpResponse:
    """A new password for someone, shown in this answer only."""
    person = get_object_or_404(User, pk=pk)
    password = services.reset_password(person, actor=actor_of(request))
    return render(
        request,
        "access/users.html",
        {
            "form": NewUserForm(),
            "people": User.objects.order_by("username"),
            "person": person,
            "password": password,
        },
    )


@page(Role.ADMINISTRATOR)
@require_http_methods(PAGE_METHODS)
def delete_user(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask, then delete."""
    person = get_object_or_404(User, pk=pk)
    if request.method != "POST":
        return render(request, "access/delete_user.html", {"person": person})
    try:
        services.delete_user(person, actor=actor_of(request))
    except Refusal as refusal:
        messages.error(request, str(refusal))
    else:
        messages.success(request, _("%s is deleted.") % person.username)
    return redirect("users")


def _let_in(request: HttpRequest, form: SignInForm) -> HttpResponse:
    user = services.authenticate_person(
        username=form.cleaned_data["username"], password=form.cleaned_data["password"], ip=address_of(request)
    )
    login(request, user)
    record("sign_in.session", actor=actor_of(request))
    return redirect(_destination(request, form.cleaned_data["next"]))


def _destination(request: HttpRequest, wanted: str) -> str:
    """Where they wanted to go, if that is a page of ours."""
    ours = url_has_allowed_host_and_scheme(wanted, {request.get_host()}, require_https=request.is_secure())
    return wanted if wanted and ours else resolve_url("overview")


def _key_list(request: HttpRequest) -> dict[str, Any]:
    user = person_of(request)
    everyone = user.as_role is Role.ADMINISTRATOR
    revoked = "revoked" in request.GET
    rows = (queries.all_keys() if everyone else queries.keys_of(user)).filter(revoked_at__isnull=not revoked)
    return {"keys": rows, "everyone": everyone, "revoked": revoked}


def _status_of(form: RefusableForm) -> int:
    return 422 if form.is_bound and form.errors else 200
