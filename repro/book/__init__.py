"""The book: pages of docs/, executed notebooks, the report and a reference from the docstrings, as a static site."""
