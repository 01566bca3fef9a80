"""What the access API reads and writes. Rules about values are the services'; these only know the form."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from access.models import ApiKey, KeyLimit, User
from access.permissions import Permission, Role
from access.services.limits import LARGEST, NUMBERS


class LoginRequest(serializers.Serializer[Any]):
    username = serializers.CharField(max_length=150)
    password = serializers.CharField(max_length=1024, trim_whitespace=False)


class Person(serializers.ModelSerializer[User]):
    """The caller."""

    role = serializers.ChoiceField(choices=Role.choices)

    class Meta:
        model = User
        fields = ("id", "username", "role", "must_change_password")
        read_only_fields = fields


class Me(Person):
    user_id = serializers.IntegerField(source="id", read_only=True)

    class Meta(Person.Meta):
        fields = (*Person.Meta.fields, "user_id")  # type: ignore[assignment]  # a longer tuple of the same kind


class LoginAnswer(serializers.Serializer[Any]):
    token = serializers.CharField(help_text="To be sent as `Authorization: Bearer …`.")
    expires_in = serializers.IntegerField(help_text="Seconds.")
    user = Person()


class PasswordChange(serializers.Serializer[Any]):
    current_password = serializers.CharField(max_length=1024, trim_whitespace=False)
    new_password = serializers.CharField(max_length=1024, trim_whitespace=False)


class UserAnswer(serializers.ModelSerializer[User]):
    role = serializers.ChoiceField(choices=Role.choices)
    created_at = serializers.DateTimeField(source="date_joined")

    class Meta:
        model = User
        fields = ("id", "username", "role", "is_active", "must_change_password", "created_at", "last_login")
        read_only_fields = fields


class UserList(serializers.Serializer[Any]):
    users = UserAnswer(many=True)
    total = serializers.IntegerField()


class NewUser(serializers.Serializer[Any]):
    username = serializers.CharField(max_length=150, help_text="3 to 50 letters, digits or underscores.")
    role = serializers.CharField(
        max_length=30, default=Role.VIEWER.value, help_text="administrator (or admin), operator, viewer."
    )


class UserChange(serializers.Serializer[Any]):
    username = serializers.CharField(max_length=150, required=False)
    role = serializers.CharField(max_length=30, required=False)
    is_active = serializers.BooleanField(required=False)


class GeneratedPassword(serializers.Serializer[Any]):
    user = UserAnswer()
    generated_password = serializers.CharField(help_text="Shown this once. Must be changed at the first sign-in.")
    must_change_password = serializers.BooleanField()


def _limit(help_text: str) -> serializers.IntegerField:
    return serializers.IntegerField(
        min_value=1, max_value=LARGEST, allow_null=True, required=False, default=None, help_text=help_text
    )


class KeyOwner(serializers.ModelSerializer[User]):
    class Meta:
        model = User
        fields = ("id", "username")
        read_only_fields = fields


class KeyLimits(serializers.ModelSerializer[KeyLimit]):
    """How much a key may use; what is null is not limited."""

    model = serializers.CharField(
        max_length=300, allow_blank=True, default="", help_text="Empty: over all models together."
    )
    requests_per_minute = _limit("In any minute.")
    tokens_per_minute = _limit("Prompt and answer, in any minute.")
    concurrent_requests = _limit("Running or waiting for a node at the same time.")
    tokens_per_day = _limit("In a calendar day (UTC).")
    tokens_per_month = _limit("In a calendar month (UTC).")

    class Meta:
        model = KeyLimit
        fields = ("model", *NUMBERS)


class KeyAnswer(serializers.ModelSerializer[ApiKey]):
    key_prefix = serializers.CharField(source="prefix", help_text="How the key starts.")
    owner = KeyOwner()
    state = serializers.ChoiceField(choices=["active", "disabled", "expired", "revoked"])
    permissions = serializers.ListField(child=serializers.ChoiceField(choices=Permission.choices))
    allowed_models = serializers.ListField(child=serializers.CharField(), help_text="Empty: all.")
    limits = KeyLimits(many=True)

    class Meta:
        model = ApiKey
        fields = (
            "id",
            "name",
            "key_prefix",
            "owner",
            "state",
            "enabled",
            "permissions",
            "allowed_models",
            "limits",
            "created_at",
            "expires_at",
            "revoked_at",
            "last_used_at",
        )
        read_only_fields = fields


class MintedKeyAnswer(KeyAnswer):
    key = serializers.SerializerMethodField(help_text="The key. Shown this once.")

    class Meta(KeyAnswer.Meta):
        fields = ("key", *KeyAnswer.Meta.fields)  # type: ignore[assignment]  # a longer tuple of the same kind

    def get_key(self, key: ApiKey) -> str:
        return str(self.context["text"])


class KeyList(serializers.Serializer[Any]):
    api_keys = KeyAnswer(many=True)
    total = serializers.IntegerField()


class KeyChange(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=100, required=False)
    permissions = serializers.ListField(child=serializers.CharField(max_length=60), required=False, max_length=50)
    allowed_models = serializers.ListField(child=serializers.CharField(max_length=300), required=False)
    expires_at = serializers.DateTimeField(required=False, allow_null=True, help_text="null: never.")
    enabled = serializers.BooleanField(required=False)
    limits = KeyLimits(
        many=True, required=False, help_text="All limits of the key. To be set with the permission `api_keys.manage`."
    )

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict) and "scopes" in data:
            raise serializers.ValidationError({"scopes": ["scopes are gone: send permissions"]})
        return super().to_internal_value(data)


class NewKey(KeyChange):
    name = serializers.CharField(max_length=100)
    permissions = serializers.ListField(
        child=serializers.CharField(max_length=60),
        max_length=50,
        error_messages={"required": "permissions are required", "null": "permissions are required"},
    )
    enabled = None  # type: ignore[assignment]  # DRF's way to take a field away
