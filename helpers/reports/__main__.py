"""The command line ``python -m helpers.reports``."""

import sys

from helpers.reports import main

if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # a name that the terminal cannot show is no reason to stop
    sys.exit(main())
