"""Minting through Vault or OpenBao. A new credential kind is one module and one line here."""

from collections.abc import Mapping
from typing import Final

from broker.document import CredentialMapping, ScopeDocument
from broker.errors import FieldViolation, ScopeDocumentInvalid
from broker.mint.kind import CredentialKind
from broker.mint.leased import Leased
from broker.mint.vault_token import VaultToken

KINDS: Final[Mapping[str, CredentialKind]] = {
    "vault_token": VaultToken(),
    "leased": Leased(),
}
MAPPINGS: Final[Mapping[str, type[CredentialMapping]]] = {name: kind.mapping for name, kind in KINDS.items()}


def check_document(document: ScopeDocument) -> None:
    """Check that a scope's schema asks for the parameters that its mapping uses.

    Raises:
        ScopeDocumentInvalid: when one is not required, or is no text where it
            must be.
    """
    mapping, schema = document.spec.credential, document.spec.parameters
    properties, required = schema.get("properties"), schema.get("required")
    violations = []
    for name, must_be_text in KINDS[mapping.kind].parameters(mapping).items():
        declared = properties.get(name) if isinstance(properties, dict) else None
        if not isinstance(required, list) or name not in required or not isinstance(declared, dict):
            rule = f"must declare the parameter {name!r} and require it, since spec.credential uses it"
            violations.append(FieldViolation("spec.parameters", rule))
        elif must_be_text and declared.get("type") != "string":
            rule = "must be of type string, since it stands in a Vault path"
            violations.append(FieldViolation(f"spec.parameters.properties.{name}", rule))
    if violations:
        first = f"{violations[0].field}: {violations[0].description}"
        raise ScopeDocumentInvalid(
            first, message=f"the scope document is not valid: {first}", violations=tuple(violations)
        )
