"""Path validation for X.509-SVIDs (RFC 5280, X509-SVID section 5), by `cryptography`'s verifier."""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from broker.attest.chain import UnverifiedChain
from broker.errors import EvidenceInvalid

MAX_INTERMEDIATES: Final = 4
MIN_RSA_BITS: Final = 2048


def verify_chain(chain: UnverifiedChain, store: Store, moment: datetime) -> Sequence[x509.Certificate]:
    """Verify a chain up to an authority in the store.

    Returns:
        The verified path, leaf first.

    Raises:
        EvidenceInvalid: when there is no such path at that moment, or the leaf
            is not what an X.509-SVID must be.
    """
    verifier = (
        PolicyBuilder()
        .store(store)
        .time(moment)
        .max_chain_depth(MAX_INTERMEDIATES)
        .extension_policies(ee_policy=_leaf_policy(), ca_policy=_authority_policy())
        .build_client_verifier()
    )
    try:
        path = verifier.verify(chain.leaf, list(chain.intermediates)).chain
        _check_leaf_key(path[0])
    except (VerificationError, x509.UnsupportedGeneralNameType, ValueError) as error:
        raise EvidenceInvalid(f"the certificate chain does not verify: {error}") from None
    return path


@cache
def _leaf_policy() -> ExtensionPolicy:
    """Return the rules for leaves.

    Other than the Web PKI, SPIFFE needs no authority key identifier, and
    extensions may be critical. Unknown critical extensions are always refused.
    """
    return (
        ExtensionPolicy.permit_all()
        .require_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)
        .may_be_present(x509.BasicConstraints, Criticality.AGNOSTIC, _check_leaf_constraints)
        .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _check_leaf_usage)
        .may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _check_leaf_purpose)
        .require_not_present(x509.NameConstraints)
    )


@cache
def _authority_policy() -> ExtensionPolicy:
    """Return the rules for signing certificates.

    The verifier itself checks that they assert ``cA`` and keep to path lengths
    and name constraints. It does not support name constraints over URIs: a
    chain with such a certificate is refused.
    """
    return (
        ExtensionPolicy.permit_all()
        .require_present(x509.BasicConstraints, Criticality.CRITICAL, None)
        .require_present(x509.KeyUsage, Criticality.AGNOSTIC, _check_authority_usage)
        .may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _check_authority_purpose)
    )


def _check_leaf_constraints(_: Policy, __: x509.Certificate, constraints: x509.BasicConstraints | None) -> None:
    if constraints is not None and constraints.ca:
        raise ValueError("the leaf is an authority")


def _check_leaf_usage(_: Policy, __: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and (not usage.digital_signature or usage.key_cert_sign or usage.crl_sign):
        raise ValueError("the leaf's key is not for digital signatures, or is for signing certificates as well")


def _check_leaf_purpose(_: Policy, __: x509.Certificate, purposes: x509.ExtendedKeyUsage | None) -> None:
    if purposes is not None and ExtendedKeyUsageOID.CLIENT_AUTH not in purposes:
        raise ValueError("the leaf is not for clients")


def _check_authority_purpose(_: Policy, __: x509.Certificate, purposes: x509.ExtendedKeyUsage | None) -> None:
    allowed = {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
    if purposes is not None and allowed.isdisjoint(purposes):
        raise ValueError("a signing certificate is not for clients' certificates")


def _check_authority_usage(_: Policy, __: x509.Certificate, usage: x509.KeyUsage) -> None:
    if not usage.key_cert_sign:
        raise ValueError("a signing certificate's key is not for signing certificates")


def _check_leaf_key(leaf: x509.Certificate) -> None:
    """The verifier looks at the keys that sign, not at the one that is signed."""
    key = leaf.public_key()
    if isinstance(key, RSAPublicKey) and key.key_size >= MIN_RSA_BITS:
        return
    if not isinstance(key, EllipticCurvePublicKey | Ed25519PublicKey):
        raise ValueError("the leaf's key is too weak or of another kind")
