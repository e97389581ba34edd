"""`python -m repro`: execute the notebooks and write the report."""

from __future__ import annotations

import sys

from repro.reports.command import main

if __name__ == "__main__":
    sys.exit(main())
