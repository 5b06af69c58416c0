"""Roles from the configuration's `access` rules."""

import pytest

from broker.authorize import RoleRules
from broker.document import Who
from broker.errors import ConfigError
from broker.model import Role
from tests.unit.authorize.makers import ISSUER, oidc, svid

ADMINS = Who(issuer=ISSUER, claims={"groups": "platform"})
AUDITORS = Who(spiffe_id="spiffe://example.org/audit/*")


def test_every_identity_is_an_agent_and_no_more() -> None:
    assert RoleRules({}).roles(svid()) == {Role.AGENT}


def test_entries_add_roles() -> None:
    rules = RoleRules({Role.ADMIN: [AUDITORS, ADMINS], Role.AUDITOR: [AUDITORS]})
    assert rules.roles(oidc(claims={"groups": ["platform"]})) == {Role.AGENT, Role.ADMIN}
    assert rules.roles(svid("spiffe://example.org/audit/a")) == {Role.AGENT, Role.ADMIN, Role.AUDITOR}
    assert rules.roles(oidc(claims={"groups": ["sales"]})) == {Role.AGENT}


def test_named_agents_are_the_only_ones() -> None:
    rules = RoleRules({Role.AGENT: [Who(spiffe_id="spiffe://example.org/agents/*")], Role.ADMIN: [ADMINS]})
    assert rules.roles(svid()) == {Role.AGENT}
    assert rules.roles(oidc(claims={"groups": "platform"})) == {Role.ADMIN}
    assert rules.roles(svid("spiffe://example.org/audit/a")) == frozenset()


def test_naming_no_agents_leaves_none() -> None:
    assert RoleRules({Role.AGENT: []}).roles(svid()) == frozenset()


def test_wrong_entries_are_a_configuration_error() -> None:
    wrong = [Who(spiffe_id="spiffe://*/a"), Who(issuer=ISSUER, subject="a*")]
    with pytest.raises(
        ConfigError, match=r"access\.admin\[0\]\.spiffeId: must .*\naccess\.admin\[1\]\.subject"
    ) as caught:
        RoleRules({Role.ADMIN: wrong})
    assert [item.field for item in caught.value.violations] == ["access.admin[0].spiffeId", "access.admin[1].subject"]
