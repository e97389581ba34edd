"""Generated data sets that only the paper's studies need; users' own are in `vsmd.data`."""
