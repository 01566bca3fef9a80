"""Model fields that know no app."""

from __future__ import annotations

from typing import Any

from django.db import models

from llmlb_site.lib.crypto import DecryptionError, decrypt_text, encrypt_text


class EncryptedTextField(models.TextField[str, str]):
    """Text that is AES-256-GCM ciphertext in the database and plain text in Python.

    A value that this installation's key cannot open reads as the empty string: a node with a lost key can still
    be listed and given a new one.
    """

    def get_prep_value(self, value: Any) -> Any:
        return encrypt_text(value, self._purpose()) if value else ""

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> str:
        if not value:
            return ""
        try:
            return decrypt_text(value, self._purpose())
        except DecryptionError:
            return ""

    def _purpose(self) -> str:
        return f"{self.model._meta.label_lower}.{self.name}"
