"""Vault's JSON: what is anything but one object in UTF-8 is no answer."""

import json
from typing import Any

import pytest

from broker.mint.replies import parse_object


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"auth": {"client_token": "s.a", "lease_duration": 900, "orphan": False, "accessor": None, "policies": ["a"]}},
        {"name": 'ä"\\\u2028\x00😀', "number": 1.5, "large": 2**70},
    ],
)
def test_an_object_is_read(value: dict[str, Any]) -> None:
    assert parse_object(json.dumps(value).encode()) == value
    assert parse_object(json.dumps(value, ensure_ascii=False, indent=1).encode()) == value


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b"{} {}",
        b'{"a": 01}',
        b"{'a': 1}",
        b'{"a": "\xff"}',
        b'{"a": "\\ud800"}',
        b"\xef\xbb\xbf{}",
        '{"a": 1}'.encode("utf-16"),
        b'{"a":' * 100_000,
        b'{"a": ' + b"[" * 1000 + b"]" * 1000 + b"}",
    ],
)
def test_anything_else_is_not(raw: bytes) -> None:
    assert parse_object(raw) is None
