from pathlib import Path
from typing import Any

import pytest

from broker.attest.claims import CHECKED, REFUSED, REQUIRED, UNCHECKED
from tests.fixtures.clock import FakeClock
from tests.unit.attest.signing import ABSENT, ISSUER, oidc_claims, svid_claims
from tests.unit.attest.support import Stage

NONSENSE = {"nonsense": [1, None, {"a": "b"}]}


def test_every_claim_has_one_account() -> None:
    accounts = [set(REQUIRED), set(CHECKED), set(REFUSED), set(UNCHECKED)]
    assert sum(map(len, accounts)) == len(set().union(*accounts))


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_required_claims(stage: Stage, name: str) -> None:
    stage.refuse(stage.signer.token(oidc_claims(**{name: ABSENT})), f"the token has no {name}")
    stage.refuse(stage.signer.token(oidc_claims(**{name: NONSENSE})), name)


@pytest.mark.parametrize("name", sorted(CHECKED))
def test_checked_claims(stage: Stage, name: str) -> None:
    stage.refuse(stage.signer.token(oidc_claims(**{name: NONSENSE})))


@pytest.mark.parametrize("name", sorted(REFUSED))
@pytest.mark.parametrize("value", [NONSENSE, {}, None, "x"])
def test_refused_claims(stage: Stage, name: str, value: Any) -> None:
    stage.refuse(stage.signer.token(oidc_claims(**{name: value})), f"the token {REFUSED[name][:15]}")
    stage.refuse(stage.svid_signer.token(svid_claims(**{name: value})), f"the token {REFUSED[name][:15]}")


@pytest.mark.parametrize("name", [*sorted(UNCHECKED), "groups", "kubernetes.io"])
def test_claims_that_are_carried_along(stage: Stage, name: str) -> None:
    assert stage.attest(stage.signer.token(oidc_claims(**{name: NONSENSE}))).claims[name] == NONSENSE


@pytest.mark.parametrize(
    ("required", "claims", "accepted"),
    [
        ({"team": "a"}, {"team": "a"}, True),
        ({"team": "a"}, {"team": "b"}, False),
        ({"team": "a"}, {"team": "A"}, False),
        ({"team": "a"}, {"team": "ab"}, False),
        ({"team": "a"}, {}, False),
        ({"team": "a"}, {"team": None}, False),
        ({"team": "a"}, {"team": ["b", "a"]}, True),
        ({"team": "a"}, {"team": []}, False),
        ({"team": "a"}, {"team": [["a"]]}, False),
        ({"team": "a"}, {"team": {"a": "a"}}, False),
        ({"team": ["a", "b"]}, {"team": "b"}, True),
        ({"team": ["a", "b"]}, {"team": ["c", "b"]}, True),
        ({"team": ["a", "b"]}, {"team": "c"}, False),
        ({"team": []}, {"team": "a"}, False),
        ({"n": 1}, {"n": 1}, True),
        ({"n": 1}, {"n": True}, False),
        ({"n": 1}, {"n": 1.0}, False),
        ({"n": 1}, {"n": "1"}, False),
        ({"ok": True}, {"ok": True}, True),
        ({"ok": True}, {"ok": 1}, False),
        ({"ok": True}, {"ok": "true"}, False),
        ({"a": "1", "b": "2"}, {"a": "1", "b": "2"}, True),
        ({"a": "1", "b": "2"}, {"a": "1"}, False),
    ],
)
def test_claims_that_the_configuration_requires(
    tmp_path: Path, clock: FakeClock, required: dict[str, Any], claims: dict[str, Any], accepted: bool
) -> None:
    stage = Stage(tmp_path, clock, required_claims=required)
    token = stage.signer.token(oidc_claims(**claims))
    if accepted:
        assert stage.attest(token).subject == "agent-7"
    else:
        stage.refuse(token, "none of the values that the configuration requires")


@pytest.mark.parametrize(
    ("subject", "uri"),
    [
        ("agent-7", "agent-7"),
        ("system:serviceaccount:ns:name", "system:serviceaccount:ns:name"),
        ("repo:org/app:ref:refs/heads/main", "repo:org/app:ref:refs/heads/main"),
        ("me@example.org", "me@example.org"),
        ("auth0|1", "auth0%7C1"),
        ("a#b", "a%23b"),
        ("a%23b", "a%2523b"),
        ("a b?c*", "a%20b%3Fc%2A"),
        ("ä/\u202e", "%C3%A4/%E2%80%AE"),
    ],
)
def test_subjects_in_uris(stage: Stage, subject: str, uri: str) -> None:
    identity = stage.attest(stage.signer.token(oidc_claims(sub=subject)))
    assert identity.uri == f"{ISSUER}#{uri}"
    assert identity.subject == subject


@pytest.mark.parametrize("kind", [ABSENT, "JWT", "jwt", "at+jwt", "application/at+JWT", "application/jwt"])
def test_types_of_tokens(stage: Stage, kind: Any) -> None:
    assert stage.attest(stage.signer.token(oidc_claims(), typ=kind)).subject == "agent-7"


@pytest.mark.parametrize("kind", ["logout+jwt", "dpop+jwt", "secevent+jwt", "JOSE", "JWE", "x"])
def test_tokens_of_another_type(stage: Stage, kind: str) -> None:
    stage.refuse(stage.signer.token(oidc_claims(), typ=kind), "another kind of token")


@pytest.mark.parametrize("kind", [ABSENT, "JWT", "jwt", "JOSE", "jose"])
def test_types_of_svids(stage: Stage, kind: Any) -> None:
    assert stage.attest(stage.svid_signer.token(svid_claims(), typ=kind)).subject == svid_claims()["sub"]


@pytest.mark.parametrize("kind", ["at+jwt", "application/jwt", "logout+jwt", "x"])
def test_svids_of_another_type(stage: Stage, kind: str) -> None:
    stage.refuse(stage.svid_signer.token(svid_claims(), typ=kind), "typ is JWT or JOSE")


def test_svid_is_checked_once_more_when_verified(stage: Stage) -> None:
    """Routing is not what establishes the trust domain."""
    for subject, match in (
        ("spiffe://other.example/x", "not of the trust domain example.org"),
        ("agent-7", "not the SPIFFE ID"),
        (7, "sub is not text"),
    ):
        token = stage.svid_signer.token(svid_claims(sub=subject))
        stage.refuse_by("jwt_svid", token, match)
