"""Secrets do not show, whatever is done with them."""

import copy
import dataclasses
import hmac
import json
import pickle
from collections.abc import Callable
from hashlib import sha256

import pytest

from broker.secret import Secret, fingerprint

CANARY = "s3cr3t-canary"
KEY = Secret(b"k" * 32)


@dataclasses.dataclass(frozen=True)
class Holder:
    name: str
    token: Secret[str]


HOLDER = Holder("a", Secret(CANARY))

SHOWING: list[Callable[[], str]] = [
    lambda: repr(HOLDER.token),
    lambda: str(HOLDER.token),
    lambda: f"{HOLDER.token}",
    lambda: f"{HOLDER.token!r:>80}",
    lambda: f"{HOLDER.token:>80}",
    lambda: "%s %r" % (HOLDER.token, HOLDER.token),  # noqa: UP031 - old code shows things this way
    lambda: repr(HOLDER),
    lambda: str({"token": HOLDER.token}),
    lambda: repr(ValueError(HOLDER.token)),
    lambda: str(ValueError(HOLDER.token)),
    lambda: json.dumps({"token": HOLDER.token}, default=repr),
    lambda: repr(Secret({"password": CANARY})),
    lambda: " ".join(dir(HOLDER.token)),
]

REFUSED: list[Callable[[], object]] = [
    lambda: json.dumps({"token": HOLDER.token}),
    lambda: pickle.dumps(HOLDER.token),
    lambda: copy.copy(HOLDER.token),
    lambda: copy.deepcopy(HOLDER),
    lambda: dataclasses.asdict(HOLDER),
    lambda: vars(HOLDER.token),
    lambda: hash(HOLDER.token),
    lambda: {HOLDER.token: 1},
    lambda: HOLDER.token == Secret(5),
    lambda: Secret(None) == Secret(None),
]


@pytest.mark.parametrize("show", SHOWING)
def test_shows_a_placeholder(show: Callable[[], str]) -> None:
    assert CANARY not in show()


def test_the_placeholder_is_recognisable() -> None:
    assert f"{HOLDER.token}" == repr(HOLDER.token) == "Secret(***)"


@pytest.mark.parametrize("use", REFUSED)
def test_refuses_to_be_turned_into_something_else(use: Callable[[], object]) -> None:
    with pytest.raises(TypeError) as caught:
        use()
    assert CANARY not in str(caught.value)


def test_gives_its_value_when_asked_by_name() -> None:
    assert HOLDER.token.reveal() == CANARY


def test_takes_no_attributes() -> None:
    with pytest.raises(AttributeError):
        HOLDER.token.note = CANARY  # type: ignore[attr-defined]  # that it is refused is the point


def test_compares_text_and_bytes() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("é") == Secret("é".encode())
    assert Secret("\ud800") != Secret("\ud801")
    assert Secret("a") != "a"
    assert Secret("a").__eq__("a") is NotImplemented


def mac(text: str) -> str:
    return hmac.new(b"k" * 32, text.encode("utf-8", "surrogatepass"), sha256).hexdigest()


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"token": "t", "password": "p"}, "t"),
        ({"username": "u", "password": "p"}, "p"),
        ({"token": "\ud800"}, "\ud800"),
        ({"b": "2", "a": "1"}, '{"a":"1","b":"2"}'),
        ({"token": 5, "a": None}, '{"a":null,"token":5}'),
        ({}, "{}"),
    ],
)
def test_fingerprints(values: dict[str, object], text: str) -> None:
    assert fingerprint(KEY, values) == mac(text)


def test_fingerprints_depend_on_every_value_and_on_the_key() -> None:
    values = {"access_key": "a", "secret_key": "b"}
    assert fingerprint(KEY, values) != fingerprint(KEY, {**values, "secret_key": "c"})
    assert fingerprint(KEY, values) != fingerprint(Secret(b"other"), values)
    # Values that hold what separates others are not mistaken for them.
    assert fingerprint(KEY, {"a": "1\0b=2"}) != fingerprint(KEY, {"a": "1", "b": "2"})
