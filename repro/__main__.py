"""`python -m repro`: execute the notebooks and write the report; `python -m repro merge`: rows made elsewhere."""

from __future__ import annotations

import sys

from repro.grid import merge
from repro.reports.command import main

if __name__ == "__main__":
    sys.exit(merge.main(sys.argv[2:]) if sys.argv[1:2] == ["merge"] else main())
