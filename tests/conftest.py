pytest_plugins = [
    "tests.fixtures.clock",
    "tests.fixtures.no_skips",
    "tests.fixtures.openbao",
    "tests.fixtures.postgres",
    "tests.fixtures.store",
    "tests.fixtures.world",
]
