"""What a client is told, by arguments or else by the environment."""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

from credbroker._errors import Misconfigured
from credbroker._evidence import AsyncTokenCallable, Bearer, Certificate, Evidence, TokenCall, TokenFile
from credbroker._retry import Policy

AnyPath: TypeAlias = str | os.PathLike[str]

_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Arguments:
    """What the caller gave; None where it gave nothing."""

    address: str | None
    token: str | AsyncTokenCallable | None
    token_file: AnyPath | None
    certificate_file: AnyPath | None
    key_file: AnyPath | None
    ca_file: AnyPath | None
    timeout: float | timedelta
    total_timeout: float | timedelta


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the broker is, how to trust it, how to prove oneself, and how patient to be."""

    address: str
    evidence: Evidence
    ca_file: Path | None
    policy: Policy


def resolve(given: Arguments, environ: Mapping[str, str] = os.environ) -> Settings:
    """Put arguments and environment together; an argument wins over its variable.

    Evidence counts as one thing: when any is given as an argument, the
    environment's is not looked at.

    Raises:
        Misconfigured: when something is missing, contradictory or malformed.
    """
    ca_file = given.ca_file or environ.get("CREDBROKER_CA_FILE") or None
    return Settings(
        address=_address(given.address or environ.get("CREDBROKER_ADDRESS") or ""),
        evidence=_evidence(given, environ),
        ca_file=None if ca_file is None else Path(ca_file),
        policy=Policy(seconds(given.timeout, "timeout"), seconds(given.total_timeout, "total_timeout")),
    )


def seconds(value: float | timedelta, name: str) -> float:
    """Return a duration in seconds.

    Raises:
        TypeError: when it is no duration.
        ValueError: when it is not longer than zero, or endless.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | timedelta):
        raise TypeError(f"{name} must be seconds or a timedelta, not {type(value).__name__}")
    number = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name} must be longer than zero, and finite")
    return number


def _address(text: str) -> str:
    if not text:
        raise Misconfigured("no broker address: pass Client('broker.example:8443'), or set CREDBROKER_ADDRESS")
    match = _ADDRESS.fullmatch(text)
    if match is None or not 0 < int(match[2]) < 65536:
        raise Misconfigured("the broker's address must be host:port, such as broker.example:8443, without a scheme")
    return text


def _evidence(given: Arguments, environ: Mapping[str, str]) -> Evidence:
    token, token_file = given.token, given.token_file
    certificate_file, key_file = given.certificate_file, given.key_file
    if token is None and not (token_file or certificate_file or key_file):
        token = environ.get("CREDBROKER_TOKEN") or None
        token_file = environ.get("CREDBROKER_TOKEN_FILE") or None
        certificate_file = environ.get("CREDBROKER_CERT_FILE") or None
        key_file = environ.get("CREDBROKER_KEY_FILE") or None
    kinds = [token is not None, bool(token_file), bool(certificate_file or key_file)]
    if sum(kinds) != 1:
        raise Misconfigured(f"{'more than one kind of' if any(kinds) else 'no'} evidence of identity: {_CHOICE}")
    if token is not None:
        return TokenCall(token) if callable(token) else Bearer(token)
    if token_file:
        return TokenFile(Path(token_file))
    if not (certificate_file and key_file):
        raise Misconfigured("a certificate needs its key: give certificate_file= and key_file= together")
    return Certificate(Path(certificate_file), Path(key_file))


_CHOICE = (
    "give one of token= (CREDBROKER_TOKEN), token_file= (CREDBROKER_TOKEN_FILE), "
    "or certificate_file= with key_file= (CREDBROKER_CERT_FILE, CREDBROKER_KEY_FILE)"
)
