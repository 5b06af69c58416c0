"""Reading HTTP/1.1 replies off a connection, one after the other (RFC 9112)."""

from typing import Final, NamedTuple

import httptools

MAX_HEAD_BYTES: Final = 64 * 1024
"""Most bytes of a reply's head."""

_INTERIM = range(100, 200)
_FRAMING = (b"content-length", b"transfer-encoding")


class NoAnswer(Exception):
    """No whole answer came; the request may have been sent. Its text holds nothing that was sent or received."""


class Reply(NamedTuple):
    """A whole reply: its status code, the ``Date`` in its head, its content."""

    status: int
    date: str | None
    content: bytes


class ReplyReader:
    """Reads the replies that come on one connection; no more than one is expected at a time.

    Attributes:
        whole: Whether the reply that was begun is complete.
        keeps_alive: Whether the server takes another request after it.
    """

    def __init__(self) -> None:
        self.begin(0)
        self._parser = httptools.HttpResponseParser(self)

    def begin(self, limit: int) -> None:
        """Expect a reply with so many bytes of content at the most."""
        self.whole = False
        self.keeps_alive = False
        self._limit = limit
        self._received = 0
        self._size = 0
        self._content: list[bytes] = []
        self._date: str | None = None
        self._head_read = False
        self._framed = False
        self._coded = False

    def feed(self, data: bytes) -> None:
        """Read what came.

        Raises:
            NoAnswer: when it is no reply, is followed by something else, is
                too much, or has a content coding.
        """
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            raise NoAnswer("the answer is not HTTP") from None
        if self._coded:
            raise NoAnswer("a content coding that was not asked for")
        if self._size > self._limit:
            raise NoAnswer(f"more than {self._limit} bytes")
        # Chunks of a few bytes, and trailers, can be much larger than what they bring.
        if self._received > MAX_HEAD_BYTES + (2 * self._limit if self._head_read else 0):
            raise NoAnswer("an answer with too much around its content")

    def end(self) -> None:
        """Note that the server sends no more, which ends content of unsaid length (section 6.3)."""
        self.whole = self.whole or (self._head_read and not self._framed and not self.keeps_alive)

    def take(self) -> Reply:
        """Return the whole reply and forget its content."""
        content, self._content = self._content, []
        return Reply(self._parser.get_status_code(), self._date, b"".join(content))

    # What the parser calls; an error that is raised here is one of the parser's.

    def on_message_begin(self) -> None:
        """Refuse a second reply."""
        if self.whole:
            raise NoAnswer("more than one answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note what counts of a field; those after the content do not."""
        if self._head_read:
            return
        name = name.lower()
        if name == b"date" and self._date is None:
            self._date = value.decode("latin-1")
        elif name in _FRAMING:
            self._framed = True
        elif name == b"content-encoding":
            self._coded = value.strip().lower() != b"identity"

    def on_headers_complete(self) -> None:
        """Note the end of a head, unless the real one is yet to come."""
        self._head_read = self._parser.get_status_code() not in _INTERIM
        self.keeps_alive = self._parser.should_keep_alive()

    def on_body(self, content: bytes) -> None:
        """Keep a part of the content."""
        self._size += len(content)
        self._content.append(content)

    def on_message_complete(self) -> None:
        """Note the end of the reply."""
        self.whole = self._head_read
