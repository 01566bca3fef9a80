"""Writing: one verb a function, each with its transaction, its line in the audit and its news to the others."""

from access.services.first_start import FirstAdmin, ensure_bootstrap_key, ensure_first_admin
from access.services.housekeeping import prune_credentials
from access.services.keys import mint_api_key, note_used, note_used_now, revoke_api_key, update_api_key
from access.services.people import (
    change_password,
    create_user,
    delete_user,
    reset_password,
    sign_out_everywhere,
    update_user,
)
from access.services.sign_in import authenticate_person, revoke_token, sign_in, sign_out

__all__ = [
    "FirstAdmin",
    "authenticate_person",
    "change_password",
    "create_user",
    "delete_user",
    "ensure_bootstrap_key",
    "ensure_first_admin",
    "mint_api_key",
    "note_used",
    "note_used_now",
    "prune_credentials",
    "reset_password",
    "revoke_api_key",
    "revoke_token",
    "sign_in",
    "sign_out",
    "sign_out_everywhere",
    "update_api_key",
    "update_user",
]
