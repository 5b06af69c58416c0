"""Who there is in a development stack, and how each proves it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType

from broker.dev.files import write_private
from broker.dev.issuer import DevIssuer
from broker.dev.pki import DevAuthority

TRUST_DOMAIN = "example.test"
AGENT = f"spiffe://{TRUST_DOMAIN}/agents/reports"
ADMINS, AUDITORS = "credbroker-admins", "credbroker-auditors"
SVID_LIFETIME = timedelta(hours=1)

_GROUPS: Mapping[str, str] = MappingProxyType({"admin": ADMINS, "auditor": AUDITORS})


@dataclass(frozen=True, slots=True)
class Evidence:
    """Files with evidence, kept fresh by `write`.

    Attributes:
        folder: Holds ``admin.jwt``, ``auditor.jwt``, ``agent.jwt``, and the
            agent's X.509-SVID in ``agent.pem`` and ``agent.key``.
    """

    folder: Path

    def token_file(self, who: str) -> Path:
        """Return the file with the token of ``admin``, ``auditor`` or ``agent``."""
        return self.folder / f"{who}.jwt"

    @property
    def certificate_file(self) -> Path:
        """The agent's X.509-SVID."""
        return self.folder / "agent.pem"

    @property
    def key_file(self) -> Path:
        """Its private key."""
        return self.folder / "agent.key"

    def write(self, issuer: DevIssuer, authority: DevAuthority) -> None:
        """Write fresh evidence; each file is replaced in one step."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        for who, group in _GROUPS.items():
            write_private(self.token_file(who), issuer.token(who, claims={"groups": [group]}).reveal())
        write_private(self.token_file("agent"), issuer.svid(AGENT).reveal())
        certificate, key = authority.issue(spiffe_id=AGENT, lifetime=SVID_LIFETIME)
        write_private(self.key_file, key)
        write_private(self.certificate_file, certificate)
