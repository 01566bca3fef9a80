"""Writing the catalogue: register and remove models, add and remove aliases, set up cloud providers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from django.db import transaction
from django.utils.translation import gettext as _

from access.audit import Actor, record
from access.refusals import Conflict, Invalid, Refusal
from llmlb_site.lib.events import publish
from llmlb_site.lib.node_addresses import AddressRefused, BadBaseUrl, check_resolved
from models_catalog.capabilities import ALL
from models_catalog.listing import Listing, list_now
from models_catalog.models import CatalogModel, CloudProvider, ModelAlias, ProviderName
from models_catalog.providers import normalise_provider_url
from models_catalog.queries import provider_state
from nodes.models import NodeModel

MAX_ID: Final = 300
_KEY: Final = re.compile(r"[\x21-\x7e]{1,4000}")


class NoSuchEntry(Refusal):
    status = 404
    code = "not_found"


def register_model(
    *, model_id: str, actor: Actor, description: str = "", capabilities: Sequence[str] = ()
) -> CatalogModel:
    """Make a model known whether or not a node has it: asked for without a holder it is then 503, not 404.

    Raises:
        Invalid: no id, or a capability that does not exist.
        Conflict: it is registered already, or its id is an alias.
    """
    wanted = _model_id(model_id, "model_id")
    if unknown := sorted(set(capabilities) - ALL):
        raise Invalid(_("There is no such capability: %s.") % ", ".join(unknown), field="capabilities")
    with transaction.atomic():
        check_model_id(wanted)
        registered = CatalogModel.objects.create(
            model_id=wanted, description=description.strip(), capabilities=sorted(set(capabilities))
        )
        record("model.register", actor=actor, target=wanted)
        publish("models", {"model": wanted})
    return registered


def remove_model(*, model_id: str, actor: Actor) -> None:
    """Forget a registration. Nodes that have the model keep it.

    Raises:
        NoSuchEntry: it is not registered.
    """
    with transaction.atomic():
        deleted, _rows = CatalogModel.objects.filter(model_id=model_id).delete()
        if not deleted:
            raise NoSuchEntry(_("This model is not registered."))
        record("model.remove", actor=actor, target=model_id)
        publish("models", {"model": model_id})


def add_alias(*, alias: str, model_id: str, actor: Actor) -> ModelAlias:
    """Another name for a model: requests for it go to the model, and their answers carry the alias.

    Raises:
        Invalid: a name is missing, both are the same, or the model is itself an alias.
        Conflict: the name is an alias already, or a model of that name exists.
    """
    name, target = _model_id(alias, "alias"), _model_id(model_id, "model_id")
    with transaction.atomic():
        check_alias(name, target)
        made = ModelAlias.objects.create(alias=name, model_id=target)
        record("alias.add", actor=actor, target=name, details={"model": target})
        publish("models", {"model": target})
    return made


def remove_alias(*, alias: str, actor: Actor) -> None:
    """Forget a name: requests for it are answered 404 from now on.

    Raises:
        NoSuchEntry: there is no such alias.
    """
    with transaction.atomic():
        deleted, _rows = ModelAlias.objects.filter(alias=alias).delete()
        if not deleted:
            raise NoSuchEntry(_("There is no such alias."))
        record("alias.remove", actor=actor, target=alias)
        publish("models", {"alias": alias})


def set_provider(
    *, name: str, actor: Actor, api_key: str | None = None, base_url: str | None = None, enabled: bool | None = None
) -> CloudProvider:
    """Set up a cloud provider; None leaves a value as it is, an empty key or address goes back to the environment's.

    A key that is kept never goes to a new address: who changes the address enters the key again.

    Raises:
        NoSuchEntry: there is no such provider.
        Invalid: the key or the address cannot be used.
    """
    if name not in ProviderName.values:
        raise NoSuchEntry(_("There is no such provider."))
    with transaction.atomic():
        row = CloudProvider.objects.select_for_update().filter(name=name).first() or CloudProvider(name=name)
        before = (row.api_key, row.base_url)
        url = row.base_url if base_url is None else _provider_url(name, base_url)
        if url != row.base_url and url and not api_key:
            raise Invalid(_("Enter the key that belongs to this address."), field="api_key")
        row.api_key = row.api_key if api_key is None else _provider_key(api_key)
        row.base_url = url if row.api_key else ""
        row.enabled = row.enabled if enabled is None else enabled
        if (row.api_key, row.base_url) != before:
            row.last_checked, row.last_error = None, ""  # its list is due
        row.save()
        record("provider.set", actor=actor, target=name, details=_provider_details(row))
        publish("models", {"provider": name})
    return row


def refresh_provider(*, name: str, actor: Actor) -> Listing:
    """Ask a provider for its models now, which also tests its key. A failure keeps the list.

    Raises:
        NoSuchEntry: there is no such provider.
        Invalid: it has no key, or is not enabled.
    """
    if name not in ProviderName.values:
        raise NoSuchEntry(_("There is no such provider."))
    state = provider_state(name, CloudProvider.objects.filter(name=name).first())
    if not state.configured:
        raise Invalid(_("This provider has no key, or is not enabled."))
    listing = list_now([state])[name]
    record("provider.refresh", actor=actor, target=name, details={"ok": listing.models is not None})
    return listing


def _provider_url(name: str, text: str) -> str:
    if not text.strip():
        return ""
    try:
        url = normalise_provider_url(name, text)
        check_resolved(url)
    except AddressRefused as error:
        raise Invalid(str(error), code="address_refused", field="base_url") from error
    except BadBaseUrl as error:
        raise Invalid(str(error), field="base_url") from error
    return url


def _provider_key(text: str) -> str:
    key = text.strip()
    if key and not _KEY.fullmatch(key):
        raise Invalid(_("A key is printable ASCII without spaces."), field="api_key")
    return key


def _provider_details(row: CloudProvider) -> dict[str, object]:
    return {"has_key": bool(row.api_key), "base_url": row.base_url, "enabled": row.enabled}


def _model_id(text: str, field: str) -> str:
    name = text.strip()
    if not name or len(name) > MAX_ID:
        raise Invalid(_("A model's name has 1 to %d characters.") % MAX_ID, field=field)
    return name


def check_model_id(name: str, *, changed: int | None = None) -> None:
    """Raises: Conflict, if it may not be registered. `changed` is the id of the entry that is about to change."""
    if CatalogModel.objects.filter(model_id=name).exclude(pk=changed or 0).exists():
        raise Conflict(_("This model is registered already."), field="model_id")
    if ModelAlias.objects.filter(alias=name).exists():
        raise Conflict(_("This is an alias of another model."), field="model_id")


def check_alias(name: str, target: str, *, changed: int | None = None) -> None:
    """Raises: Invalid, Conflict, if `name` may not mean `target`. `changed` is the id of the entry to be changed."""
    others = ModelAlias.objects.exclude(pk=changed or 0)
    if name == target:
        raise Invalid(_("An alias is another name than the model's own."), field="alias")
    if others.filter(alias=target).exists():
        raise Invalid(_("This is an alias itself; point to the model."), field="model_id")
    if others.filter(alias=name).exists():
        raise Conflict(_("This alias exists already."), field="alias")
    if NodeModel.objects.filter(model_id=name).exists() or CatalogModel.objects.filter(model_id=name).exists():
        raise Conflict(_("A model of this name exists: an alias would hide it."), field="alias")
    if others.filter(model_id=name).exists():
        raise Conflict(_("Other aliases point to this name."), field="alias")
