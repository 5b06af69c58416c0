from typing import Any

import pytest
from pydantic import ValidationError

from broker.attest import ATTESTORS, SETTINGS
from broker.attest.settings import KeySettings
from tests.unit.attest.support import entry

OIDC: dict[str, Any] = {"issuer": "https://a.example", "audiences": ["a"], "jwks": {"file": "f"}}
JWT_SVID: dict[str, Any] = {"trust_domain": "a.example", "audiences": ["a"], "bundle": {"file": "f"}}
X509_SVID: dict[str, Any] = {"trust_domain": "a.example", "bundle": {"file": "f"}}
USUAL = {"oidc": OIDC, "jwt_svid": JWT_SVID, "x509_svid": X509_SVID}


def test_every_kind_has_settings() -> None:
    assert SETTINGS.keys() == ATTESTORS.keys() == USUAL.keys()
    for kind, fields in USUAL.items():
        assert entry(kind, **fields).kind == kind
        with pytest.raises(ValidationError):
            entry(kind, **fields, unknown=1)
        with pytest.raises(ValidationError):
            SETTINGS[kind].model_validate({**fields, "name": "a", "kind": "other"})


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("oidc", {"issuer": "https://a.example/path/x"}),
        ("oidc", {"issuer": "http://127.0.0.1:8080"}),
        ("oidc", {"issuer": "http://localhost"}),
        ("oidc", {"issuer": "http://[::1]:1"}),
        ("oidc", {"algorithms": ["EdDSA"]}),
        ("oidc", {"leeway": "5m"}),
        ("jwt_svid", {"algorithms": ["PS512"]}),
        ("jwt_svid", {"trust_domain": "a_b-c.1"}),
    ],
)
def test_entries(kind: str, changes: dict[str, Any]) -> None:
    entry(kind, **{**USUAL[kind], **changes})


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("oidc", {"issuer": "http://a.example"}),
        ("oidc", {"issuer": "http://127.0.0.1.evil.example"}),
        ("oidc", {"issuer": "https://a.example?x"}),
        ("oidc", {"issuer": "https://a.example#x"}),
        ("oidc", {"issuer": "https://user@a.example"}),
        ("oidc", {"issuer": "https://a.example:0"}),
        ("oidc", {"issuer": "https://a.example:99999"}),
        ("oidc", {"issuer": "https://:443"}),
        ("oidc", {"issuer": "https://[a.example"}),
        ("oidc", {"issuer": "file:///etc/passwd"}),
        ("oidc", {"issuer": "https://a.example\n"}),
        ("oidc", {"audiences": []}),
        ("oidc", {"audiences": [""]}),
        ("oidc", {"audiences": "a"}),
        ("oidc", {"algorithms": []}),
        ("oidc", {"algorithms": ["none"]}),
        ("oidc", {"algorithms": ["HS256"]}),
        ("oidc", {"algorithms": ["es256"]}),
        ("oidc", {"leeway": "301s"}),
        ("oidc", {"max_lifetime": 5}),
        ("oidc", {"one_time": "yes"}),
        ("oidc", {"jwks": {}}),
        ("jwt_svid", {"algorithms": ["EdDSA"]}),
        ("jwt_svid", {"trust_domain": "spiffe://a.example"}),
        ("jwt_svid", {"trust_domain": "A.example"}),
        ("jwt_svid", {"trust_domain": ""}),
        ("x509_svid", {"trust_domain": "a.example/x"}),
        ("x509_svid", {"bundle": {"url": "https://a.example"}}),
    ],
)
def test_entries_that_are_refused(kind: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        entry(kind, **{**USUAL[kind], **changes})


@pytest.mark.parametrize(
    "keys",
    [
        {"file": "f"},
        {"url": "https://a.example/keys?policy=b2c&x=%20"},
        {"url": "https://[2606:4700::1111]:8443/keys", "ca_file": "ca.pem", "allow_private": True},
        {"url": "http://localhost:1/keys", "allow_private": True},
        {"url": "https://a.example", "refresh": "1m", "cooldown": "1m", "max_stale": "1m"},
    ],
)
def test_key_sources(keys: dict[str, Any]) -> None:
    KeySettings.model_validate(keys)


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({}, "either file or url"),
        ({"file": "f", "url": "https://a.example"}, "either file or url"),
        ({"file": "f", "ca_file": "c"}, "go with url"),
        ({"file": "f", "allow_private": True}, "go with url"),
        ({"url": "http://a.example", "allow_private": True}, "must be https"),
        ({"url": "http://10.0.0.1", "allow_private": True}, "must be https"),
        ({"url": "http://127.0.0.1"}, "allow_private"),
        ({"url": "file:///etc/passwd"}, "pattern"),
        ({"url": "https://user:secret@a.example"}, "pattern"),
        ({"url": "https://a.example/#x"}, "pattern"),
        ({"url": "https://a.example", "cooldown": "11m"}, "must not decrease"),
        ({"url": "https://a.example", "refresh": "25h"}, "must not decrease"),
    ],
)
def test_key_sources_that_are_refused(keys: dict[str, Any], match: str) -> None:
    with pytest.raises(ValidationError, match=match):
        KeySettings.model_validate(keys)
