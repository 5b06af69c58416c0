"""`python -m tests.soak`: a simulated day with more rounds, or another seed, than the tests take."""

import argparse
import os
import secrets
import sys

import pytest

_EPILOG = """\
example:
  python -m tests.soak --seed 42 --minutes 20 --database postgresql

The same seed and minutes give the same schedule: what agents and operators do,
what breaks, when. What comes of it also depends on timing. A failure prints
the seed and the last events. Exit status 0 means that the books matched.
"""


def main() -> int:
    """Run one day and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak",
        description="Let a day of traffic with random faults pass on real servers, then compare the books.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="where chance begins")
    parser.add_argument("--minutes", type=float, default=5, help="about how long it takes; default: 5")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), help="default: one day on each")
    wanted = parser.parse_args()
    os.environ |= {"SOAK_SEED": str(wanted.seed), "SOAK_MINUTES": str(wanted.minutes)}
    sys.stdout.write(f"seed {wanted.seed}, {wanted.minutes:g} minutes\n")
    sys.stdout.flush()
    chosen = f"day and {wanted.database}" if wanted.database else "day"
    return int(pytest.main(["tests/faults/test_soak.py", "-m", "long", "-k", chosen, "-s", "-p", "no:cacheprovider"]))


if __name__ == "__main__":
    sys.exit(main())
