"""What may stand in a Vault path: the one place that decides it.

Vault, its client libraries and proxies before it each rewrite paths in their
own way, so nothing that any of them could rewrite is ever let in.
"""

import re

SEGMENT_RULE = "must be 1 to 256 characters out of A-Z a-z 0-9 _ . - and neither . nor .."
RESERVED = ("sys", "auth", "identity")

_SEGMENT = re.compile(r"[A-Za-z0-9_.-]{1,256}")
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]{0,62})\}")


def safe_segment(text: str) -> str:
    """Return one segment of a path as it is.

    Raises:
        ValueError: when it could be read as anything but one literal segment.
    """
    if text in (".", "..") or not _SEGMENT.fullmatch(text):
        raise ValueError(SEGMENT_RULE)
    return text


def placeholder(text: str) -> str | None:
    """Return the parameter that ``{parameter}`` names; None when the text is no placeholder."""
    match = _PLACEHOLDER.fullmatch(text)
    return match[1] if match else None


def check_policy_path(path: str) -> str:
    """Return a path of a Vault policy as it is.

    ``+`` stands for one whole segment, a final ``*`` for any rest, and a final
    ``/`` is what listing a folder needs.

    Raises:
        ValueError: when it holds anything else, or lies where a scope could
            reach Vault itself or the broker's tokens.
    """
    segments = path.split("/")
    _check_mount(segments)
    *middle, last = segments[1:]
    for segment in middle:
        if segment != "+":
            _check(segment, path)
    if last not in ("", "*", "+"):
        _check(last.removesuffix("*"), path)
    return path


def check_template(path: str) -> str:
    """Return the path template of a secrets engine as it is.

    ``{parameter}`` stands for one whole segment.

    Raises:
        ValueError: when it holds anything else, or lies where a scope could
            reach Vault itself or the broker's tokens.
    """
    segments = path.split("/")
    _check_mount(segments)
    for segment in segments[1:]:
        if placeholder(segment) is None:
            _check(segment, path)
    return path


def _check_mount(segments: list[str]) -> None:
    if len(segments) < 2:
        raise ValueError("must name a path below a secrets engine, such as secret/data/app")
    _check(segments[0], "/".join(segments))
    if segments[0] in RESERVED:
        raise ValueError(
            f"must not be under {segments[0]}/: a scope cannot give power over Vault itself or over the broker's tokens"
        )


def _check(segment: str, path: str) -> None:
    try:
        safe_segment(segment)
    except ValueError as error:
        raise ValueError(f"{segment!r} in {path!r} is not allowed: each part between slashes {error}") from None
