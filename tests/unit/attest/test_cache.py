from datetime import timedelta

from broker.attest.cache import MAX_ENTRIES, IdentityCache
from broker.attest.evidence import BearerToken, PeerCertificates
from broker.attest.reading import digest_evidence
from broker.model import EvidenceKind, Identity, Proof
from tests.unit.attest.signing import NOW
from tests.unit.attest.support import Stage, bearer


def _identity(**changes: Proof) -> Identity:
    return Identity("u", EvidenceKind.OIDC, "i", "s", {}, "", NOW + timedelta(hours=1), **changes)


def _digest(number: int) -> bytes:
    return number.to_bytes(32)


def test_least_recently_used_makes_room(stage: Stage) -> None:
    attestor = stage.attestors["oidc"]
    cache = IdentityCache()
    for number in range(MAX_ENTRIES):
        cache.keep(BearerToken, _digest(number), _identity(), attestor, attestor.generation, NOW)
    assert cache.find(BearerToken, _digest(0), NOW) is not None
    cache.keep(BearerToken, _digest(MAX_ENTRIES), _identity(), attestor, attestor.generation, NOW)
    assert len(cache) == MAX_ENTRIES
    assert cache.find(BearerToken, _digest(0), NOW) is not None
    assert cache.find(BearerToken, _digest(1), NOW) is None


def test_what_no_longer_holds_is_forgotten(stage: Stage) -> None:
    attestor = stage.attestors["oidc"]
    cache = IdentityCache()
    cache.keep(BearerToken, _digest(1), _identity(), attestor, attestor.generation, NOW)
    cache.keep(BearerToken, _digest(2), _identity(), attestor, attestor.generation - 1, NOW)
    assert cache.find(BearerToken, _digest(1), NOW + timedelta(minutes=5)) is None
    assert cache.find(BearerToken, _digest(2), NOW) is None
    assert len(cache) == 0


def test_evidence_for_one_use_is_not_kept(stage: Stage) -> None:
    cache = IdentityCache()
    cache.keep(BearerToken, _digest(1), _identity(proof=Proof("d", NOW)), stage.attestors["oidc"], 0, NOW)
    assert len(cache) == 0


def test_kinds_of_evidence_do_not_share_entries(stage: Stage) -> None:
    """A token may be as long as the bytes that stand for a chain, but is never taken for them."""
    chain = PeerCertificates((b"abc",))
    token = bearer("\0\0\0\3abc")
    assert digest_evidence(chain) == digest_evidence(token)
    cache = IdentityCache()
    cache.keep(PeerCertificates, digest_evidence(chain), _identity(), stage.attestors["x509_svid"], 0, NOW)
    assert cache.find(BearerToken, digest_evidence(token), NOW) is None


def test_chains_are_told_apart_by_where_they_are_split() -> None:
    assert digest_evidence(PeerCertificates((b"ab", b"c"))) != digest_evidence(PeerCertificates((b"a", b"bc")))
    assert digest_evidence(PeerCertificates((b"abc",))) != digest_evidence(PeerCertificates((b"abc", b"")))
