"""Why a service did not do what it was asked.

    Refusal
    ├── Invalid        400: the values cannot be used
    │   └── LastAdministrator
    ├── NotAllowed     403: the caller may not do this
    ├── SignInFailed   401: wrong name or password
    ├── Conflict       409: another one is in the way
    └── TooMany        429: try again later

The message is for people, and translatable; the code is for programs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise


class Refusal(Exception):
    """`field` names the value that is at fault, where one is."""

    status = 400
    code = "refused"

    def __init__(self, message: _StrOrPromise, *, code: str = "", field: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.code
        self.field = field

    def __str__(self) -> str:
        return str(self.message)


class Invalid(Refusal):
    code = "validation_error"


class LastAdministrator(Invalid):
    code = "last_administrator"

    def __init__(self) -> None:
        super().__init__(_("The last active administrator cannot be removed, demoted or deactivated."))


class NotAllowed(Refusal):
    status = 403
    code = "insufficient_permission"


class SignInFailed(Refusal):
    status = 401
    code = "invalid_credentials"

    def __init__(self) -> None:
        super().__init__(_("Invalid username or password"))


class Conflict(Refusal):
    status = 409
    code = "conflict"


class TooMany(Refusal):
    """`retry_after` is seconds."""

    status = 429
    code = "too_many_attempts"

    def __init__(self, retry_after: int) -> None:
        super().__init__(_("Too many attempts. Try again in a minute."))
        self.retry_after = retry_after
