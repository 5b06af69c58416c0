"""Entries of `who`: which identities are meant (threats 5 and 6)."""

import pytest

from broker.authorize.who import WhoRule, compile_who
from broker.document import Who
from broker.errors import FieldViolation
from broker.model import Identity, JsonValue
from tests.unit.authorize.makers import AGENT, ISSUER, oidc, svid


def rule(**entry: object) -> WhoRule:
    violations: list[FieldViolation] = []
    (compiled,) = compile_who([Who.model_validate(entry)], "spec.who", violations)
    assert violations == []
    return compiled


def means(identity: Identity, **entry: object) -> bool:
    return rule(**entry).mismatch(identity) == ""


def test_a_spiffe_id_means_svids_alone() -> None:
    assert means(svid(), spiffeId="spiffe://example.org/agents/*")
    assert means(svid(claims={}), spiffeId="spiffe://example.org/agents/*")
    assert not means(svid("spiffe://example.org/other/a"), spiffeId="spiffe://example.org/agents/*")


def test_an_oidc_subject_that_looks_like_a_spiffe_id_is_none() -> None:
    assert not means(oidc(subject=AGENT), spiffeId=AGENT)
    assert not means(oidc(subject=AGENT, issuer="spiffe://example.org"), spiffeId=AGENT)


def test_an_issuer_means_oidc_identities_alone() -> None:
    assert means(oidc("a"), issuer=ISSUER, subject="a")
    assert not means(svid(claims={"team": "x"}), issuer="spiffe://example.org", claims={"team": "x"})


@pytest.mark.parametrize(
    "issuer",
    [f"{ISSUER}/", f"{ISSUER}.evil", "https://issuer.exampl", "https://ISSUER.example", "issuer.example", "https://*"],
)
def test_issuers_are_compared_exactly(issuer: str) -> None:
    assert not means(oidc("a"), issuer=issuer, subject="a")


@pytest.mark.parametrize(
    ("pattern", "subject", "meant"),
    [
        ("repo:org/app:ref:refs/heads/main", "repo:org/app:ref:refs/heads/main", True),
        ("repo:org/app:ref:refs/heads/*", "repo:org/app:ref:refs/heads/main", True),
        ("repo:org/app:ref:refs/heads/*", "repo:org/app:ref:refs/heads/a/b", False),
        ("repo:org/*", "repo:org/app/x", False),
        ("repo:org/**", "repo:org/app/x", True),
        ("main|develop", "main", False),
        ("a b", "a b", True),
        ("a%20b", "a b", False),
        ("a#b", "a#b", True),
    ],
)
def test_subjects_are_matched_as_the_issuer_wrote_them(pattern: str, subject: str, meant: bool) -> None:
    assert means(oidc(subject), issuer=ISSUER, subject=pattern) is meant


@pytest.mark.parametrize(
    ("wanted", "claim", "meant"),
    [
        ("x", "x", True),
        ("x", "X", False),
        ("x", "xy", False),
        (1, 1, True),
        (1, True, False),
        (True, 1, False),
        (True, True, True),
        (False, 0, False),
        (1, 1.0, False),
        (1, "1", False),
        ("", None, False),
        (["x", "y"], "y", True),
        (["x", 1], True, False),
        (["x", 1], 1, True),
        ("x", ["a", "x"], True),
        ("x", ["a"], False),
        ("x", [], False),
        ("x", [["x"]], False),
        ("x", {"x": "x"}, False),
        (1, [True], False),
        (["x", "y"], ["a", "y"], True),
    ],
)
def test_claims_are_compared_with_their_types(wanted: JsonValue, claim: JsonValue, meant: bool) -> None:
    assert means(oidc(claims={"team": claim}), issuer=ISSUER, claims={"team": wanted}) is meant


def test_a_missing_claim_does_not_match() -> None:
    assert not means(oidc(claims={}), issuer=ISSUER, claims={"team": "x"})
    assert not means(svid(), spiffeId=AGENT, claims={"team": "x"})


def test_dots_in_a_claim_name_are_part_of_it() -> None:
    assert means(oidc(claims={"a.b": "x"}), issuer=ISSUER, claims={"a.b": "x"})
    assert not means(oidc(claims={"a": {"b": "x"}}), issuer=ISSUER, claims={"a.b": "x"})


def test_all_that_is_given_must_match() -> None:
    entry = {"issuer": ISSUER, "subject": "a", "claims": {"team": "x", "env": "prod"}}
    assert means(oidc("a", {"team": "x", "env": "prod", "more": 1}), **entry)
    assert not means(oidc("b", {"team": "x", "env": "prod"}), **entry)
    assert not means(oidc("a", {"team": "x", "env": "test"}), **entry)
    assert not means(oidc("a", {"team": "x", "env": "prod"}, issuer="https://other.example"), **entry)


def test_every_wrong_pattern_is_named_with_its_path() -> None:
    violations: list[FieldViolation] = []
    entries = [
        Who(spiffe_id="spiffe://*/a"),
        Who(spiffe_id=AGENT),
        Who(issuer=ISSUER, subject="a//b"),
    ]
    compile_who(entries, "access.admin", violations)
    assert [item.field for item in violations] == ["access.admin[0].spiffeId", "access.admin[2].subject"]
    assert all(item.description.startswith("must ") for item in violations)
