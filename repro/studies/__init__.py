"""What the notebooks run: one file a study, functions from settings to a `Result`; stored by `grid`."""
