"""Scopes, compiled: what decides is made once per version."""

from dataclasses import dataclass

from broker.authorize.condition import Condition
from broker.authorize.parameters import ParameterRules
from broker.authorize.schema import SchemaProblem
from broker.authorize.who import WhoRule, compile_who
from broker.document import ScopeDocument, invalid_document
from broker.errors import FieldViolation
from broker.model import ScopeRecord


@dataclass(frozen=True, slots=True)
class CompiledScope:
    """One version of a scope, ready to decide.

    Attributes:
        record: As it is stored.
        document: What it says.
        who: The entries of ``spec.who``.
        parameters: ``spec.parameters``.
        condition: ``spec.when``, where there is one.
    """

    record: ScopeRecord
    document: ScopeDocument
    who: tuple[WhoRule, ...]
    parameters: ParameterRules
    condition: Condition | None

    @property
    def name(self) -> str:
        """The scope's name."""
        return self.record.name

    @property
    def version(self) -> int:
        """The version's number."""
        return self.record.version


def compile_scope(record: ScopeRecord, document: ScopeDocument) -> CompiledScope:
    """Compile one version of a scope.

    Raises:
        ScopeDocumentInvalid: with each wrong field, its path in the document
            and what was expected there.
    """
    violations: list[FieldViolation] = []
    if document.metadata.name != record.name:
        violations.append(FieldViolation("metadata.name", f"must be {record.name!r}, as the scope is called"))
    who = compile_who(document.spec.who, "spec.who", violations)
    condition = _condition(document, violations)
    parameters = _parameters(document, violations)
    if violations or parameters is None:
        raise invalid_document(*violations)
    return CompiledScope(record, document, who, parameters, condition)


def _condition(document: ScopeDocument, violations: list[FieldViolation]) -> Condition | None:
    try:
        return None if document.spec.when is None else Condition(document.spec.when)
    except ValueError as error:
        violations.append(FieldViolation("spec.when", str(error)))
        return None


def _parameters(document: ScopeDocument, violations: list[FieldViolation]) -> ParameterRules | None:
    try:
        return ParameterRules(document.spec.parameters)
    except SchemaProblem as problem:
        violations.append(problem.violation)
        return None
