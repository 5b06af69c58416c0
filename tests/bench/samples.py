"""What callers note of their work, and how they judge what they got."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from tests.bench.client import Servers
from tests.bench.wire import WrongReply

Unit = Callable[[], Awaitable[None]]
"""What a caller does again and again."""


@dataclass(slots=True)
class Samples:
    """What one span of load did.

    Attributes:
        waits: Seconds that each credential took to get, or each renewal, or each start of a task.
        ends: Seconds that each end of a task took; directly, that of everything that was got for it.
        secrets: What was got; a credential that comes twice is none.
    """

    waits: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)

    def clear(self) -> None:
        """Forget what was done to get ready."""
        self.waits.clear()
        self.ends.clear()


def content_of(reply: tuple[int, bytes]) -> Any:
    """Return the JSON of a reply of OpenBao's that must have gone well."""
    status, content = reply
    if status != 200:
        raise WrongReply(f"OpenBao answered with {status}: {content!r}")
    return json.loads(content)


async def honours(servers: Servers, secret: str) -> bool:
    """Say whether what was got still works: a token, or a database user with its password."""
    user, _, password = secret.partition(" ")
    return await (servers.honours_login(user, password) if password else servers.honours_token(user))


async def check_refused(servers: Servers, secret: str) -> None:
    """Check that a token is refused at once, and a database user soon: Vault drops users after its reply."""
    user, _, password = secret.partition(" ")
    if password:
        await servers.until_login_refused(user, password)
    elif await servers.honours_token(secret):
        raise WrongReply("a credential works that was taken back")
