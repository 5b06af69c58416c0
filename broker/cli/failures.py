"""What a command ends in when it cannot do its work, and what to do next."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from broker.terminal import printable

if TYPE_CHECKING:
    import grpc

REFUSED = 1
MISUSED = 2


class Failure(Exception):
    """A command failed in a way that its user can understand.

    Args:
        message: What happened, on one line; escaped when it is shown.
        reason: Stable reason, as in ``google.rpc.ErrorInfo``.
        advice: What to do next.
        details: Further lines, such as wrong fields.
        exit_code: 1 when something refused or failed, 2 when the input is wrong.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        advice: str = "",
        details: Sequence[str] = (),
        exit_code: int = REFUSED,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.advice = advice
        self.details = tuple(details)
        self.exit_code = exit_code

    def lines(self) -> list[str]:
        """Return what is shown: one line, and one more for each detail."""
        first = f"error: {self.message}"
        if self.reason:
            first += f" ({self.reason})"
        if self.advice:
            first += f" - {self.advice}"
        return [printable(first), *(f"  {printable(detail)}" for detail in self.details)]


ADVICE: Mapping[str, str] = MappingProxyType(
    {
        "EVIDENCE_MISSING": "set CREDBROKER_TOKEN_FILE, or CREDBROKER_CERT_FILE and CREDBROKER_KEY_FILE",
        "EVIDENCE_INVALID": "check that the token is for this broker: its issuer, audience and expiry",
        "EVIDENCE_EXPIRED": "fetch a fresh token",
        "EVIDENCE_REPLAYED": "fetch a fresh token for every call",
        "ROLE_REQUIRED": "use an identity that `access` in the broker's configuration gives this role",
        "LOCKED": "`broker locks` shows who locked it and why",
        "ETAG_MISMATCH": "run `broker scopes plan` again",
        "SCOPE_EXISTS": "run `broker scopes plan` again",
        "SCOPE_NOT_FOUND": "`broker scopes list` shows what there is",
        "TASK_NOT_FOUND": "`broker tasks list` shows what there is",
        "ISSUANCE_NOT_FOUND": "`broker issuances list` shows what there is",
        "LOCK_NOT_FOUND": "`broker locks` shows what is in force",
        "OVERLOADED": "try again in a moment",
        "CLOCK_UNCERTAIN": "`broker status` says by how much the clocks differ",
        "VAULT_UNAVAILABLE": "check that Vault is up and unsealed, then try again",
        "STORE_UNAVAILABLE": "`broker db check` says what is wrong with the database",
        "ISSUER_KEYS_UNAVAILABLE": "check that the broker reaches the issuer of your token, then try again",
    }
)


def from_rpc(error: Exception, address: str) -> Failure:
    """Say what a failed call means.

    Args:
        error: What the call raised.
        address: The broker that was asked.
    """
    import grpc
    from google.rpc import error_details_pb2
    from grpc_status import rpc_status

    if not isinstance(error, grpc.Call):
        return Failure(str(error))
    info = error_details_pb2.ErrorInfo()
    violations: list[str] = []
    status = rpc_status.from_call(error)
    for detail in status.details if status is not None else ():
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest()
            detail.Unpack(bad)
            violations = [f"{item.field or 'the request'}: {item.description}" for item in bad.field_violations]
    message = error.details() or "the call failed"
    if len(violations) == 1 and violations[0].partition(": ")[2] in message:
        violations = []
    if info.reason:
        return Failure(message, reason=info.reason, advice=ADVICE.get(info.reason, ""), details=violations)
    return _transport(error.code(), message, address)


def _transport(code: "grpc.StatusCode", message: str, address: str) -> Failure:
    import grpc

    if code is grpc.StatusCode.UNAVAILABLE:
        if "CERTIFICATE_VERIFY_FAILED" in message or "Peer name" in message or "peer verification" in message.lower():
            return Failure(
                f"the certificate of {address} is not trusted",
                reason="UNAVAILABLE",
                advice="set CREDBROKER_CA_FILE to the CA that signed the broker's certificate",
            )
        if "andshake" in message or "SSL_ERROR" in message or "Socket closed" in message:
            return Failure(
                f"{address} did not complete the TLS handshake",
                reason="UNAVAILABLE",
                advice="check the port: one listener takes tokens, the other wants a client certificate",
            )
        advice = "check CREDBROKER_ADDRESS and that the broker runs"
        return Failure(f"cannot reach the broker at {address}", reason="UNAVAILABLE", advice=advice)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        advice = "check the broker's health; what you asked for may have been done"
        return Failure(f"{address} did not answer in time", reason="DEADLINE_EXCEEDED", advice=advice)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        advice = "check that the address is the broker's and that it is as new as this command"
        return Failure(f"{address} does not know this call", reason="UNIMPLEMENTED", advice=advice)
    return Failure(message, reason=code.name)
