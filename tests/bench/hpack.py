"""Header fields of HTTP/2 without a dynamic table and without Huffman's code (RFC 7541).

The load generator asks its peer for a table of size zero, so that equal fields
are equal bytes. Peers may use Huffman's code nevertheless: such a value is
given as it travels, and equals nothing that a reply is compared with.
"""

from collections.abc import Mapping
from typing import Final

_STATIC: Final[Mapping[int, tuple[bytes, bytes]]] = {
    8: (b":status", b"200"),
    31: (b"content-type", b""),
}


def literal(name: bytes, value: bytes) -> bytes:
    """Return a field that no table keeps (section 6.2.2)."""
    return b"\x00" + _string(name) + _string(value)


def fields_of(block: bytes) -> dict[bytes, bytes]:
    """Return the fields of a block by name; the last of equal names.

    Raises:
        IndexError: when the block ends too early.
        ValueError: when it uses a dynamic table.
    """
    fields: dict[bytes, bytes] = {}
    at = 0
    while at < len(block):
        first = block[at]
        if first & 0x80:
            index, at = _integer(block, at, 7)
            name, value = _static(index)
            fields[name] = value
        elif first & 0xE0 == 0x20:
            size, at = _integer(block, at, 5)
            if size:
                raise ValueError("a dynamic table")
        else:
            index, at = _integer(block, at, 6 if first & 0x40 else 4)
            if index:
                name = _static(index)[0]
            else:
                name, at = _text(block, at)
            fields[name], at = _text(block, at)
    return fields


def _static(index: int) -> tuple[bytes, bytes]:
    if not 0 < index <= 61:
        raise ValueError("a dynamic table")
    return _STATIC.get(index, (b"static %d" % index, b""))


def _integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    """Return a number and where the next thing begins (section 5.1)."""
    limit = (1 << bits) - 1
    value, at = block[at] & limit, at + 1
    if value < limit:
        return value, at
    shift = 0
    while True:
        byte, at = block[at], at + 1
        value += (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def _text(block: bytes, at: int) -> tuple[bytes, int]:
    coded = block[at] & 0x80
    length, at = _integer(block, at, 7)
    if at + length > len(block):
        raise IndexError("a text that ends too early")
    text = block[at : at + length]
    return (b"in Huffman's code: " + text if coded else text), at + length


def _string(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes((len(text),)) + text
    rest, length = len(text) - 127, bytearray((127,))
    while rest >= 128:
        length.append(rest % 128 + 128)
        rest //= 128
    length.append(rest)
    return bytes(length) + text
