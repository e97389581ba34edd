"""The package tortured: killed, fed damaged files and odd arguments, put on full disks, run for long. `make torture`.

    python -m torture --seed 0 --scale 1 --only kills,files        from the repository, with tests/ on the path

Each part is a module with a function `run(tally, scale)`; each runs in a process of its own. Rows go to
reports/reliability.csv, words to reports/reliability.md. Exit status 1 if anything was lost.
"""

from __future__ import annotations

PARTS = {  # in the order in which they begin, the longest first
    "calls": "odd and ordinary arguments over the public face",
    "kills": "killed at random and chosen moments, then resumed",
    "files": "damaged and hostile files for every reader",
    "memory": "resident memory over long training and many forecasts",
    "disks": "full disks and read-only folders for every writer",
    "threads": "the same bits with the same number of threads",
    "pythons": "the same results on other Pythons",
}
