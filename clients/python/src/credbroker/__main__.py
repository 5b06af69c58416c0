"""``python -m credbroker`` is the ``credbroker`` command."""

import sys

from credbroker.cli import main

if __name__ == "__main__":
    sys.exit(main())
