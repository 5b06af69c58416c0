"""A wrapper that keeps secret values out of logs, errors and ``repr``."""

import hmac
import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Final, Generic, NoReturn, TypeVar

T = TypeVar("T")


class Secret(Generic[T]):
    """Holds a value that must not be shown.

    ``repr``, ``str`` and ``format`` give a placeholder; pickling and copying
    into a dict are refused. `reveal` is the one way to the value, so that a
    search for it finds every use.
    """

    __slots__ = ("__value",)

    def __init__(self, value: T) -> None:
        self.__value: Final = value

    def reveal(self) -> T:
        """Return the value."""
        return self.__value

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        """Compare in constant time, for text and bytes only.

        Raises:
            TypeError: when either side is no secret text or bytes.
        """
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(_as_bytes(self.__value), _as_bytes(other.reveal()))

    __hash__ = None  # type: ignore[assignment]  # a secret is no dictionary key

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled")


SecretText = Secret[str]


def _as_bytes(value: object) -> bytes:
    if isinstance(value, str):
        # An encoding error would carry the value.
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, bytes):
        return value
    raise TypeError("only secret text and bytes can be compared")


def fingerprint(key: Secret[bytes], values: Mapping[str, object]) -> str:
    """Return the keyed fingerprint of a credential, in lower-case hexadecimal.

    The value named ``token`` or ``password`` (in this order) stands for the
    credential where there is one, so that an auditor who holds a leaked value
    can compute the same fingerprint from it alone; otherwise all values count,
    as JSON with sorted names and without spaces. HMAC-SHA-256, RFC 2104.
    """
    for name in ("token", "password"):
        value = values.get(name)
        if isinstance(value, str):
            return hmac.new(key.reveal(), _as_bytes(value), sha256).hexdigest()
    text = json.dumps(dict(values), sort_keys=True, separators=(",", ":"))
    return hmac.new(key.reveal(), text.encode(), sha256).hexdigest()
