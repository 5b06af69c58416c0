"""The entries of ``spec.who`` and ``access``: which identities are meant."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from broker.authorize.patterns import AgentPattern, Segments, parse_segments, parse_spiffe_pattern
from broker.document import Who
from broker.errors import FieldViolation
from broker.model import EvidenceKind, Identity

# With its type, since True equals 1 and must not match it.
_Typed: TypeAlias = tuple[type, str | int]


@dataclass(frozen=True, slots=True)
class WhoRule:
    """One compiled entry.

    Attributes:
        where: Its path, such as ``spec.who[0]``.
        spiffe_id: Given for identities from SVIDs.
        issuer: Given for OIDC identities.
        subject: Over the subject as the issuer wrote it.
        claims: Name and accepted values of each.
    """

    where: str
    spiffe_id: AgentPattern | None
    issuer: str | None
    subject: Segments | None
    claims: tuple[tuple[str, frozenset[_Typed]], ...]

    def mismatch(self, identity: Identity) -> str:
        """Say why the identity is not meant; empty when it is."""
        return self._name_mismatch(identity) or self._claim_mismatch(identity)

    def _name_mismatch(self, identity: Identity) -> str:
        if self.spiffe_id is not None:
            name = identity.spiffe_id
            return "" if name is not None and self.spiffe_id.match(name) else "the SPIFFE ID does not match"
        if identity.kind is not EvidenceKind.OIDC or identity.issuer != self.issuer:
            return "the issuer is another"
        if self.subject is not None and not self.subject.match(identity.subject):
            return "the subject does not match"
        return ""

    def _claim_mismatch(self, identity: Identity) -> str:
        for name, accepted in self.claims:
            if name not in identity.claims:
                return f"the claim {name!r} is missing"
            if accepted.isdisjoint(_typed(identity.claims[name])):
                return f"the claim {name!r} has another value"
        return ""


def _typed(claim: object) -> Iterator[_Typed]:
    for value in claim if isinstance(claim, list) else (claim,):
        if isinstance(value, str | int):
            yield type(value), value


def compile_who(entries: Sequence[Who], path: str, violations: list[FieldViolation]) -> tuple[WhoRule, ...]:
    """Compile entries; what is wrong with them is added to ``violations``.

    Args:
        entries: As the document has them.
        path: Where they stand, such as ``spec.who``.
        violations: Gets each wrong field and what was expected there.
    """
    rules = []
    for index, entry in enumerate(entries):
        where = f"{path}[{index}]"
        spiffe_id = subject = None
        try:
            if entry.spiffe_id is not None:
                spiffe_id = parse_spiffe_pattern(entry.spiffe_id)
        except ValueError as error:
            violations.append(FieldViolation(f"{where}.spiffeId", str(error)))
        try:
            if entry.subject is not None:
                subject = parse_segments(entry.subject)
        except ValueError as error:
            violations.append(FieldViolation(f"{where}.subject", str(error)))
        claims = tuple((name, frozenset(_typed(value))) for name, value in entry.claims.items())
        rules.append(WhoRule(where, spiffe_id, entry.issuer, subject, claims))
    return tuple(rules)
