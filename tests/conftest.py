pytest_plugins = [
    "tests.fixtures.clock",
    "tests.fixtures.openbao",
    "tests.fixtures.postgres",
]
