"""Tables and figures with provenance, the paper's beside ours; from stored tables only.

`Report` saves what a notebook makes, `mean_std` condenses seeds, `style` is the one look of all figures;
`claims` judges the paper's claims by rules fixed beforehand, and `page` puts everything on one page.
"""

from __future__ import annotations

from repro.reports.artefacts import Report, paper_ids
from repro.reports.style import METHOD_COLOURS, colour, curve, label_points, looks, palette, plain_log, use_style, words
from repro.reports.summary import lowest_bold, markdown, mean_std, mean_std_text

__all__ = [
    "METHOD_COLOURS", "Report", "colour", "curve", "label_points", "looks", "lowest_bold", "markdown", "mean_std",
    "mean_std_text", "palette", "paper_ids", "plain_log", "use_style", "words",
]  # fmt: skip
