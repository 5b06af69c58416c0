"""Base64url without padding (RFC 7515, appendix C), in its one canonical form."""

import base64
import re

_ALPHABET = re.compile(r"[A-Za-z0-9_-]*")


def decode(text: str) -> bytes:
    """Return the bytes of canonical base64url text.

    Padding, other characters and set bits beyond the last byte are refused, so
    that no two texts mean the same bytes.

    Raises:
        ValueError: when the text is anything but the canonical form.
    """
    if _ALPHABET.fullmatch(text) is None or len(text) % 4 == 1:
        raise ValueError("is not base64url without padding")
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if encode(data) != text:
        raise ValueError("is not canonical base64url")
    return data


def encode(data: bytes) -> str:
    """Return canonical base64url text without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
