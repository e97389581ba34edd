"""What the notebooks run: one file a study, functions from settings to a `Result`; stored by `grid`."""

import warnings

# Raw units and the Gaussian prior are the paper's: what they leave at either end is measured, not warned of.
warnings.filterwarnings("ignore", message=r"(noise of std|prior=)", category=UserWarning)
