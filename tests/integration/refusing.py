"""How a refusal looks to a caller."""

from collections.abc import Awaitable
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status


class Refused:
    """A refusal: its gRPC code, its stable reason, what it says and carries."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self.code = error.code()
        self.text = error.details() or ""
        self.reason = ""
        self.metadata: dict[str, str] = {}
        self.fields: list[str] = []
        status = rpc_status.from_call(error)  # type: ignore[arg-type]  # an AioRpcError has what is read
        for detail in status.details if status is not None else ():
            info, fields = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
            if detail.Unpack(info):
                self.reason, self.metadata = info.reason, dict(info.metadata)
                assert info.domain == "credbroker.dev"
            elif detail.Unpack(fields):
                self.fields = [violation.field for violation in fields.field_violations]


async def refused(call: Awaitable[Any]) -> Refused:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return Refused(caught.value)
