import os

# gRPC's fork handlers run in every child between fork and exec, where its
# threads are gone; a test that starts a server must not depend on their luck.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

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
