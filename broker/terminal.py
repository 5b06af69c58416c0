"""What may reach a terminal.

Names, purposes and reasons come from agents and from other admins. A control
character in one of them could clear the screen, rewrite a line above or hide
part of a URI from the one who reads it.
"""


def printable(text: str) -> str:
    r"""Return the text on one line, with everything a terminal might act on escaped.

    What Unicode calls printable stays as it is; control characters, line
    breaks, bidirectional overrides, invisible characters, unusual spaces and
    lone surrogates become ``\n``, ``\x1b``, ``\u202e`` and so on.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def printable_lines(text: str) -> list[str]:
    """Return the lines of a text, each as `printable` gives it.

    Only line feeds end a line: everything else that some programs take for a
    line break stays visible.
    """
    return [printable(line) for line in text.split("\n")]
