"""Which roles the configuration's ``access`` rules give an identity."""

from collections.abc import Mapping, Sequence

from broker.authorize.who import compile_who
from broker.document import Who
from broker.errors import ConfigError, FieldViolation
from broker.model import Identity, Role

_EVERY_IDENTITY = frozenset({Role.AGENT})


class RoleRules:
    """The compiled ``access`` rules.

    Every attested identity is an agent, unless the rules name the agents.

    Raises:
        ConfigError: with every wrong entry and what was expected.
    """

    def __init__(self, access: Mapping[Role, Sequence[Who]]) -> None:
        violations: list[FieldViolation] = []
        self._rules = {
            role: compile_who(entries, f"access.{role.value}", violations) for role, entries in access.items()
        }
        if violations:
            raise ConfigError(
                "\n".join(f"{item.field}: {item.description}" for item in violations), violations=tuple(violations)
            )
        self._granted = frozenset() if Role.AGENT in access else _EVERY_IDENTITY

    def roles(self, identity: Identity) -> frozenset[Role]:
        """Return the identity's roles."""
        named = {role for role, rules in self._rules.items() if any(not rule.mismatch(identity) for rule in rules)}
        return self._granted | named
