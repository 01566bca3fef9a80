"""What the OpenAPI document says of every view beyond what its serializers say. DRF's views import this module."""

from __future__ import annotations

import re
from typing import Any, Final

from drf_spectacular.openapi import AutoSchema

from access.api.rules import rule_for
from access.permissions import Permission
from access.rules import Everyone, KnownCaller, SignedInPerson

_ERROR_REFERENCE: Final = {"$ref": "#/components/schemas/Error"}
_ERROR: Final[dict[str, Any]] = {
    "type": "object",
    "description": "Every error of /api/*.",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string", "description": "For programs; does not change."},
                "message": {"type": "string", "description": "For people."},
                "fields": {
                    "type": "object",
                    "description": "Messages by field.",
                    "additionalProperties": {"type": "array", "items": {"type": "string"}},
                },
            },
        }
    },
}


class RuleSchema(AutoSchema):
    """Says of each operation who may use it, told from the rule that is enforced; and names it by method and path."""

    def get_operation_id(self) -> str:
        """`get_users`, `put_users_by_id`: unique without anyone's care, and stable as long as the path is."""
        steps = [step for step in self.path.removeprefix("/api").strip("/").split("/") if step]
        words = [re.sub(r"\{(.+)\}", r"by_\1", step) for step in steps]
        return "_".join([self.method.lower(), *words]).replace("-", "_")

    def get_description(self) -> str:  # type: ignore[override]  # drf-spectacular's form of it
        return f"{super().get_description()}\n\n{_who(rule_for(self.view, self.method))}".strip()

    def get_auth(self) -> list[dict[str, Any]]:
        if isinstance(rule_for(self.view, self.method), Everyone):
            return [{}]
        auth: list[dict[str, Any]] = super().get_auth()
        return auth


def add_errors(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """drf-spectacular's post-processing: every operation can answer with an error, all of one shape."""
    result.setdefault("components", {}).setdefault("schemas", {})["Error"] = _ERROR
    answer = {"description": "An error", "content": {"application/json": {"schema": _ERROR_REFERENCE}}}
    for operations in result["paths"].values():
        for operation in operations.values():
            operation["responses"].update({"4XX": answer, "5XX": answer})
    return result


def _who(rule: object) -> str:
    match rule:
        case Permission():
            return f"Needs the permission `{rule.value}`, by role or by key."
        case SignedInPerson():
            return "For people who are signed in, not for API keys."
        case KnownCaller():
            return "For people who are signed in and for any API key."
    return ""
