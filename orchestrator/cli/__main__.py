"""`python -m orchestrator.cli`: how `up` and `demo` start their children."""

import sys

from orchestrator.cli import main

if __name__ == "__main__":
    sys.exit(main())
