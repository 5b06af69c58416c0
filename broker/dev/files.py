"""Files of the development stack that nobody else may read."""

import os
from pathlib import Path


def write_private(file: Path, content: bytes | str) -> None:
    """Write a file that its owner alone can read, replacing an earlier one in one step.

    Who reads it at the same time sees the old content or the new one, never a
    part.
    """
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    data = content.encode() if isinstance(content, str) else content
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(data)
    draft.replace(file)
