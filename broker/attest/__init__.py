"""From evidence to identity: nothing that is not verified leaves this stage."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from broker.attest import jwt_svid, oidc, x509_svid
from broker.attest.cache import IdentityCache
from broker.attest.evidence import Evidence
from broker.attest.kind import AttestorKind, Route, RoutedAttestor, Unverified
from broker.attest.reading import digest_evidence, read_evidence, routes_of
from broker.attest.x509_svid import X509SvidAttestor
from broker.clock import Clock
from broker.config import AttestorSettings
from broker.errors import ConfigError, EvidenceInvalid, EvidenceMissing, KeysUnavailable
from broker.model import Identity

ATTESTORS: Final[Mapping[str, AttestorKind]] = {
    "oidc": oidc.KIND,
    "jwt_svid": jwt_svid.KIND,
    "x509_svid": x509_svid.KIND,
}
SETTINGS: Final[Mapping[str, type[AttestorSettings]]] = {name: kind.settings for name, kind in ATTESTORS.items()}


class Attestation:
    """Turns evidence into identities, each by the one attestor that it belongs to.

    Args:
        entries: The configured attestors.
        clock: Says when keys are to be fetched again, and nothing else.

    Raises:
        ConfigError: when a file cannot be used, or two entries are for the same
            issuer or trust domain.
    """

    def __init__(self, entries: Sequence[AttestorSettings], clock: Clock) -> None:
        self._attestors: dict[Route, RoutedAttestor] = {}
        self._cache = IdentityCache()
        for entry in entries:
            attestor = ATTESTORS[entry.kind].build(entry, clock)
            other = self._attestors.setdefault(attestor.route, attestor)
            if other is not attestor:
                raise ConfigError(f"attestors {other.name} and {attestor.name} are both for {attestor.route.authority}")

    async def attest(self, evidence: Evidence | None, now: datetime) -> Identity:
        """Establish who presents evidence.

        Raises:
            EvidenceMissing: when there is none.
            EvidenceInvalid: when it is not acceptable; ``detail`` says why.
            EvidenceExpired: when it is genuine and has expired.
            KeysUnavailable: when the issuer's keys cannot be had.
        """
        if evidence is None:
            raise EvidenceMissing
        digest = digest_evidence(evidence)
        known = self._cache.find(type(evidence), digest, now)
        if known is not None:
            return known
        unverified = read_evidence(evidence, digest)
        attestor = self._route(unverified)
        generation = attestor.generation
        identity = await attestor.verify(unverified, now)
        self._cache.keep(type(evidence), digest, identity, attestor, generation, now)
        return identity

    async def check(self) -> None:
        """Load all keys that have not been loaded.

        Raises:
            KeysUnavailable: when some cannot be had; names all of them.
        """
        attestors = tuple(self._attestors.values())
        results = await asyncio.gather(*(attestor.check() for attestor in attestors), return_exceptions=True)
        failures = []
        for attestor, result in zip(attestors, results, strict=True):
            if isinstance(result, KeysUnavailable):
                failures.append(f"{attestor.name}: {result.detail}")
            elif result is not None:
                raise result
        if failures:
            raise KeysUnavailable("; ".join(failures))

    def reload(self) -> None:
        """Read all files again; an identity that came from what has changed is verified anew.

        What cannot be used leaves what was read before in place.

        Raises:
            ConfigError: when a file cannot be used, after all were tried.
        """
        failures = []
        for attestor in self._attestors.values():
            try:
                attestor.reload()
            except ConfigError as error:
                failures.append(error.detail)
        if failures:
            raise ConfigError("\n".join(failures))

    def trust_bundle_pem(self) -> bytes:
        """Return the authorities of all X.509 trust domains, PEM, for the mutual-TLS listener."""
        return b"".join(
            attestor.trust_bundle_pem for attestor in self._attestors.values() if isinstance(attestor, X509SvidAttestor)
        )

    async def close(self) -> None:
        """Stop everything in the background."""
        for attestor in self._attestors.values():
            await attestor.close()

    def _route(self, unverified: Unverified) -> RoutedAttestor:
        claimed = []
        for route in routes_of(unverified):
            attestor = self._attestors.get(route)
            if attestor is not None:
                return attestor
            claimed.append(f"{route.kind} {route.authority[:100]!a}")
        raise EvidenceInvalid(f"no attestor is for what the evidence claims: {', '.join(claimed) or 'nothing'}")
