import os
import signal

# gRPC's fork handlers run in every child between fork and exec, where its
# threads are gone; a test that starts a server must not depend on their luck.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

# Loads nothing of gRPC, but chooses its listener before any test does.
import broker.serve  # noqa: F401

# A shell that runs the tests in the background lets them ignore interrupts, and
# so would every process that they start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = [
    "tests.fixtures.clock",
    "tests.fixtures.no_skips",
    "tests.fixtures.openbao",
    "tests.fixtures.postgres",
    "tests.fixtures.store",
    "tests.fixtures.world",
    "tests.fixtures.books",
    "tests.fakes.collector",
]
