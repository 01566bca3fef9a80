"""The form of keys: what the gateway splits and compares on every request."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from access import keys


def test_a_minted_key_has_the_promised_form_and_comes_apart_again() -> None:
    minted = keys.mint()

    assert re.fullmatch(r"sk_[A-Za-z0-9]{44}", minted.text)
    parts = keys.split(minted.text)
    assert parts is not None
    assert parts[0] == minted.public_id
    assert keys.same(keys.digest(parts[1]), minted.digest)


def test_no_two_are_alike() -> None:
    assert len({keys.mint().text for _ in range(200)}) == 200


def test_a_token_is_no_key_and_a_key_is_no_token() -> None:
    token, key = keys.mint_token(), keys.mint()

    assert keys.split_token(key.text) is None
    parts = keys.split(token.text)
    assert parts is not None
    assert parts[0] != token.public_id  # only an irregular key, which nobody has
    assert keys.digest(token.text[-32:]) != token.digest


@pytest.mark.parametrize("text", ["", "sk_", "sk_short", "x" * 31, "x" * 513])
def test_what_can_be_no_key_is_none(text: str) -> None:
    assert keys.split(text) is None


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=32, max_size=200))
def test_any_text_of_32_characters_can_be_a_bootstrap_key(text: str) -> None:
    parts = keys.split(text)

    assert parts == keys.split(text)
    assert parts is not None
    assert 12 <= len(parts[0]) <= 16
    if len(parts[0]) > keys.PUBLIC_ID_LENGTH:
        assert parts[1] == text
        assert parts[0] not in text
        assert keys.shown(parts[0]) == f"#{parts[0]}"  # a start of this key would be a part of the secret


def test_an_unknown_id_is_never_the_same() -> None:
    assert not keys.same(bytes(32), None)
