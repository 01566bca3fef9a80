"""Secrets at rest: one master key, a purpose for each use, AES-256-GCM and HMAC-SHA-256."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import string
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings

_NONCE_BYTES: Final = 12
_TEXT_PREFIX: Final = "v1:"
BASE62: Final = string.ascii_letters + string.digits


class DecryptionError(Exception):
    """The text was not written with this installation's secret key, or it was changed."""


def load_or_create_secret_key(data_dir: Path) -> str:
    """The installation's secret key: read from `secret_key` in the data directory, made there (0600) if missing."""
    path = data_dir / "secret_key"
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:  # another process was first
        return path.read_text().strip()
    with os.fdopen(descriptor, "w") as file:
        key = secrets.token_urlsafe(48)
        file.write(key)
    return key


@lru_cache(maxsize=64)
def derived_key(purpose: str) -> bytes:
    """32 bytes for one purpose: no two uses share a key, and the master key itself encrypts nothing."""
    return hmac.new(settings.SECRET_KEY.encode(), b"llmlb:" + purpose.encode(), hashlib.sha256).digest()


@lru_cache(maxsize=64)
def _cipher(purpose: str) -> AESGCM:
    """Made once: setting up the key costs as much as a kilobyte's encryption."""
    return AESGCM(derived_key(purpose))


def encrypt_bytes(plain: bytes, purpose: str) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + _cipher(purpose).encrypt(nonce, plain, None)


def encryptor(purpose: str, times: int) -> Callable[[bytes], bytes]:
    """`encrypt_bytes` for up to so many times, with the randomness of all of them fetched at once."""
    encrypt = _cipher(purpose).encrypt
    random = os.urandom(_NONCE_BYTES * times)
    nonces = iter([random[start : start + _NONCE_BYTES] for start in range(0, len(random), _NONCE_BYTES)])

    def encrypt_next(plain: bytes) -> bytes:
        nonce = next(nonces)
        return nonce + encrypt(nonce, plain, None)

    return encrypt_next


def decrypt_bytes(sealed: bytes, purpose: str) -> bytes:
    """Raises: DecryptionError."""
    try:
        return _cipher(purpose).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None)
    except (InvalidTag, ValueError) as error:
        raise DecryptionError("cannot be decrypted with this installation's secret key") from error


def encrypt_text(plain: str, purpose: str) -> str:
    return _TEXT_PREFIX + base64.b64encode(encrypt_bytes(plain.encode(), purpose)).decode()


def decrypt_text(sealed: str, purpose: str) -> str:
    """Raises: DecryptionError."""
    if not sealed.startswith(_TEXT_PREFIX):
        raise DecryptionError("is not in a known form")
    try:
        raw = base64.b64decode(sealed.removeprefix(_TEXT_PREFIX), validate=True)
    except ValueError as error:
        raise DecryptionError("is not in a known form") from error
    return decrypt_bytes(raw, purpose).decode()


def keyed_hash(secret: str, purpose: str) -> bytes:
    """HMAC-SHA-256 of a random secret. Random secrets need no slow hash; people's passwords do (Argon2)."""
    return hmac.digest(derived_key(purpose), secret.encode(), hashlib.sha256)


def random_base62(length: int) -> str:
    return "".join(secrets.choice(BASE62) for _ in range(length))
