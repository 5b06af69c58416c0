"""Whatever arrives, parsers answer with a value or with the one error that they document."""

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from broker.attest import base64url
from broker.attest.chain import parse_chain
from broker.attest.key_set import KeyProfile, parse_key_set
from broker.attest.spiffe_id import parse_spiffe_id
from broker.attest.strict_json import MAX_DEPTH, MAX_VALUES, parse_object
from broker.attest.token import parse_token
from broker.errors import EvidenceInvalid
from tests.unit.attest.authority import Authority
from tests.unit.attest.signing import Signer, dumps, oidc_claims

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(st.binary(max_size=200))
def test_base64url_has_one_text_for_each_value(data: bytes) -> None:
    text = base64url.encode(data)
    assert base64url.decode(text) == data


@given(st.text(alphabet="ABCDwxyz0189-_+/= \n", max_size=20))
def test_base64url_refuses_every_other_text(text: str) -> None:
    try:
        data = base64url.decode(text)
    except ValueError:
        return
    assert base64url.encode(data) == text


@given(st.binary())
def test_json_from_any_bytes(data: bytes) -> None:
    try:
        value = parse_object(data)
    except ValueError as error:
        assert type(error) is ValueError  # noqa: PT017 - the library's own errors quote the data
    else:
        assert isinstance(value, dict)


@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_json_is_read_as_it_was_meant(value: dict[str, Any]) -> None:
    data = json.dumps(value).encode()
    try:
        parsed = parse_object(data)
    except ValueError:
        return
    assert parsed == value


@pytest.mark.parametrize("depth", [MAX_DEPTH, MAX_DEPTH + 1])
def test_json_depth(depth: int) -> None:
    data = b'{"a":' * depth + b"1" + b"}" * depth
    if depth <= MAX_DEPTH:
        parse_object(data)
    else:
        with pytest.raises(ValueError, match="levels"):
            parse_object(data)


@pytest.mark.parametrize("count", [MAX_VALUES - 2, MAX_VALUES - 1])
def test_json_size(count: int) -> None:
    data = b'{"a":[' + b",".join([b"1"] * count) + b"]}"
    if count == MAX_VALUES - 2:
        assert len(parse_object(data)["a"]) == count  # type: ignore[arg-type]  # a list, as just written
    else:
        with pytest.raises(ValueError, match="values"):
            parse_object(data)


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63) + 1, 0, -1, 1.5, 1e300, -0.25])
def test_json_numbers(number: float) -> None:
    assert parse_object(json.dumps({"n": number}).encode()) == {"n": number}


@pytest.mark.parametrize("text", ["9223372036854775808", "-9223372036854775808", "1" * 41, "1." + "1" * 41, "1e400"])
def test_json_numbers_out_of_range(text: str) -> None:
    with pytest.raises(ValueError, match=r"64 bits|out of range"):
        parse_object(f'{{"n":{text}}}'.encode())


@given(st.text())
def test_token_from_any_text(text: str) -> None:
    with pytest.raises(EvidenceInvalid):
        parse_token(text, b"")


@given(st.binary(max_size=300), st.binary(max_size=300), st.binary(max_size=100))
def test_token_from_any_segments(header: bytes, payload: bytes, signature: bytes) -> None:
    with pytest.raises(EvidenceInvalid):
        parse_token(".".join(map(base64url.encode, (header, payload, signature))), b"")


@given(st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "x"]), json_values), json_values)
def test_token_from_any_json(header: dict[str, Any], claims: Any) -> None:
    segments = (json.dumps(header).encode(), json.dumps(claims).encode(), b"signature")
    try:
        token = parse_token(".".join(map(base64url.encode, segments)), b"digest")
    except EvidenceInvalid:
        return
    assert token.jws.algorithm == header["alg"]
    assert token.unverified_claims == claims


@pytest.mark.parametrize(
    "text", ["", ".", "..", "...", "a.b", "a.b.c.d", "{}", '{"payload":"","signatures":[]}', "e30.e30.", ".e30.AA"]
)
def test_text_that_is_no_token(text: str) -> None:
    with pytest.raises(EvidenceInvalid):
        parse_token(text, b"")


@pytest.mark.parametrize("name", ["alg", "kid", "typ"])
@pytest.mark.parametrize("value", [None, "", 7, True, ["ES256"], {}, "x" * 257])
def test_header_of_the_wrong_type(name: str, value: Any) -> None:
    token = Signer().compact(dumps({"alg": "ES256", name: value}), dumps(oidc_claims()))
    with pytest.raises(EvidenceInvalid, match=f"{name} header is not text"):
        parse_token(token, b"")


def test_token_that_is_too_long_for_its_parser() -> None:
    with pytest.raises(EvidenceInvalid, match="longer than"):
        parse_token("a" * (16 * 1024 + 1), b"")


def test_unverified_token_does_not_show_itself() -> None:
    text = Signer().token(oidc_claims(sub="who-is-it"))
    shown = repr(parse_token(text, b""))
    assert "who-is-it" not in shown
    assert not any(part in shown for part in text.split("."))


@given(st.text() | st.from_regex(r"spiffe://[a-zA-Z0-9._%:@/-]*"))
def test_spiffe_id_from_any_text(text: str) -> None:
    try:
        spiffe_id = parse_spiffe_id(text)
    except ValueError:
        return
    assert spiffe_id.uri == text
    assert text.startswith(f"spiffe://{spiffe_id.trust_domain}/")
    assert len(text) <= 2048


@pytest.mark.parametrize(
    "text",
    [
        "spiffe://example.org/a",
        "spiffe://example.org/a/b.c/D_e-f/...",
        "spiffe://1.2.3.4/a",
        "spiffe://a_b-c/x",
        "spiffe://" + "d" * 255 + "/x",
        "spiffe://d/" + "x" * (2048 - len("spiffe://d/")),
    ],
)
def test_spiffe_ids(text: str) -> None:
    assert parse_spiffe_id(text).trust_domain == text.split("/")[2]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "spiffe://",
        "spiffe:///a",
        "spiffe://example.org",
        "spiffe://example.org/",
        "spiffe://example.org/a/",
        "spiffe://example.org//a",
        "spiffe://example.org/./a",
        "spiffe://example.org/a/..",
        "spiffe://example.org/a%2fb",
        "spiffe://example.org/a b",
        "spiffe://example.org/a?b",
        "spiffe://example.org/a#b",
        "spiffe://example.org/ä",
        "spiffe://Example.org/a",
        "spiffe://example.org:8443/a",
        "spiffe://user@example.org/a",
        "SPIFFE://example.org/a",
        "https://example.org/a",
        "spiffe://example.org/a\n",
        "spiffe://" + "d" * 256 + "/x",
        "spiffe://d/" + "x" * (2049 - len("spiffe://d/")),
    ],
)
def test_texts_that_are_no_spiffe_id(text: str) -> None:
    with pytest.raises(ValueError, match="not the SPIFFE ID"):
        parse_spiffe_id(text)


@given(st.binary())
def test_key_set_from_any_bytes(data: bytes) -> None:
    with pytest.raises(ValueError):
        parse_key_set(data, KeyProfile(use="sig"))


@given(st.lists(json_values | st.dictionaries(st.sampled_from(list(Signer().jwk)), json_values)))
def test_key_set_from_any_json(keys: list[Any]) -> None:
    good = Signer().jwk
    parsed = parse_key_set(json.dumps({"keys": [*keys, good]}).encode(), KeyProfile(use="sig"))
    assert parsed.select("k1").algorithms == {"ES256"}


LEAF = Authority().leaf().public_bytes(Encoding.DER)


def damage(index: int, change: int) -> bytes:
    damaged = bytearray(LEAF)
    damaged[index] ^= change
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(bytes(damaged)) + b"-----END CERTIFICATE-----\n"


def test_chain_with_a_serial_number_that_is_not_positive() -> None:
    # SEQUENCE, SEQUENCE, version, INTEGER and its length come before (RFC 5280, section 4.1).
    serial = 4 + 4 + 5 + 2
    assert LEAF[serial - 2] == 2
    with pytest.raises(EvidenceInvalid, match="cannot be read"):
        parse_chain([damage(serial, 128)], b"")


def test_chain_of_an_unknown_version() -> None:
    # SEQUENCE, SEQUENCE, [0], INTEGER, its length and the version itself.
    version = 4 + 4 + 4
    assert LEAF[version] == 2
    with pytest.raises(EvidenceInvalid, match="cannot be read"):
        parse_chain([damage(version, 1)], b"")


@given(st.binary())
def test_chain_from_any_bytes(data: bytes) -> None:
    with pytest.raises(EvidenceInvalid):
        parse_chain([data], b"")


@given(st.integers(0, len(LEAF) - 1), st.integers(1, 255))
def test_chain_from_a_damaged_certificate(index: int, change: int) -> None:
    try:
        chain = parse_chain([damage(index, change)], b"")
    except EvidenceInvalid:
        return
    assert chain.unverified_id.uri.startswith("spiffe://")
