"""SPIFFE IDs, read as strictly as the SPIFFE-ID standard allows (section 2)."""

import re
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import Field

MAX_CHARS: Final = 2048

# Section 2.1: lower case, no port, no user information, no percent-encoding, at most 255 characters.
TrustDomain = Annotated[str, Field(pattern=r"^[a-z0-9._-]{1,255}$")]

_SPIFFE_ID = re.compile(r"spiffe://([a-z0-9._-]{1,255})((?:/[A-Za-z0-9._-]+)+)")


@dataclass(frozen=True, slots=True)
class SpiffeId:
    """A well-formed workload SPIFFE ID; whether it is anybody's is for attestors to say.

    Attributes:
        uri: The whole ID.
        trust_domain: Its trust domain's name.
    """

    uri: str
    trust_domain: str


def parse_spiffe_id(text: str) -> SpiffeId:
    """Read the SPIFFE ID of a workload.

    An ID without a path names a signing authority, which may not act as a
    workload (X509-SVID, section 3.2), and is refused.

    Raises:
        ValueError: when it is no such ID.
    """
    match = _SPIFFE_ID.fullmatch(text) if len(text) <= MAX_CHARS else None
    if match is None or not {".", ".."}.isdisjoint(match[2].split("/")):
        raise ValueError("is not the SPIFFE ID of a workload")
    return SpiffeId(text, match[1])
