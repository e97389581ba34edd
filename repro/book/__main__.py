"""`python -m repro.book [--out FOLDER] [--reports FOLDER]`."""

import sys

from repro.book.assemble import main

if __name__ == "__main__":
    sys.exit(main())
