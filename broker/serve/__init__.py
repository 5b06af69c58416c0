"""The gRPC layer: two listeners, one interceptor, thin servicers.

Everything that crosses the network is judged here and nowhere else: who may
call what (`access`, `interceptor`), whether a request is well-formed
(`convert`), and what a caller is told when it is refused (`errors`).
"""

import os

# Before gRPC is loaded: its older listener reads and writes on the thread that
# waits for events, and not on threads of its own (docs/adr/0027). What an
# operator sets there stays.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")
