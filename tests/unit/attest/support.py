"""Building the stage the way the configuration does, and driving it."""

from collections.abc import Coroutine
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from cryptography import x509

from broker.attest import ATTESTORS, SETTINGS, Attestation
from broker.attest.evidence import BearerToken, Evidence, PeerCertificates
from broker.config import AttestorSettings
from broker.errors import BrokerError, EvidenceInvalid
from broker.model import Identity
from broker.secret import Secret
from tests.fixtures.clock import FakeClock
from tests.unit.attest.authority import Authority, pem
from tests.unit.attest.signing import AUDIENCE, ISSUER, NOW, TRUST_DOMAIN, Signer, key_set

T = TypeVar("T")


def entry(kind: str, **fields: Any) -> AttestorSettings:
    return SETTINGS[kind].model_validate({"kind": kind, "name": kind.replace("_", "-"), **fields})


def bearer(token: str) -> BearerToken:
    return BearerToken(Secret(token))


def peer(*certificates: x509.Certificate) -> PeerCertificates:
    return PeerCertificates(tuple(map(pem, certificates)))


def finish(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that has nothing to wait for."""
    try:
        work.send(None)
    except StopIteration as result:
        return cast("T", result.value)
    raise AssertionError("it waits for something")


class Stage:
    """An attestation stage with one attestor of each kind, whose keys are in files."""

    def __init__(self, folder: Path, clock: FakeClock, **oidc: Any) -> None:
        self.signer = Signer()
        self.svid_signer = Signer("ES256", "svid-1", number=1)
        self.authority = Authority()
        self.jwks = folder / "jwks.json"
        self.jwt_bundle = folder / "bundle.json"
        self.x509_bundle = folder / "bundle.pem"
        self.jwks.write_bytes(key_set(self.signer))
        self.jwt_bundle.write_bytes(key_set({**self.svid_signer.jwk, "use": "jwt-svid"}))
        self.x509_bundle.write_bytes(self.authority.pem)
        issuer = {"issuer": ISSUER, "audiences": [AUDIENCE], "jwks": {"file": str(self.jwks)}, **oidc}
        domain = {"trust_domain": TRUST_DOMAIN}
        self.entries = {
            "oidc": entry("oidc", **issuer),
            "jwt_svid": entry("jwt_svid", **domain, audiences=[AUDIENCE], bundle={"file": str(self.jwt_bundle)}),
            "x509_svid": entry("x509_svid", **domain, bundle={"file": str(self.x509_bundle)}),
        }
        self.attestation = Attestation(list(self.entries.values()), clock)
        self.attestors = {kind: ATTESTORS[kind].build(entry, clock) for kind, entry in self.entries.items()}

    def attest(self, evidence: Evidence | str | None, now: datetime = NOW) -> Identity:
        return finish(self.attestation.attest(None if evidence is None else _evidence(evidence), now))

    def refuse(
        self,
        evidence: Evidence | str,
        match: str = ".",
        error: type[BrokerError] = EvidenceInvalid,
        now: datetime = NOW,
    ) -> None:
        """Expect exactly this error, with a detail that holds no part of a token."""
        with pytest.raises(BrokerError, match=match) as caught:
            self.attest(evidence, now)
        assert type(caught.value) is error
        if isinstance(evidence, str):
            assert not any(len(part) > 8 and part in caught.value.detail for part in evidence.split("."))

    def refuse_by(self, kind: str, evidence: Evidence | str, match: str) -> None:
        """Expect one attestor to refuse, also when it is asked directly."""
        with pytest.raises(EvidenceInvalid, match=match):
            finish(self.attestors[kind].attest(_evidence(evidence), NOW))


def _evidence(evidence: Evidence | str) -> Evidence:
    return bearer(evidence) if isinstance(evidence, str) else evidence
