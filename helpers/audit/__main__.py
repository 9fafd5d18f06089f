"""The command line ``python -m helpers.audit``."""

import sys

from helpers.audit import main

if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # a name that the terminal cannot show is no reason to stop
    sys.exit(main())
