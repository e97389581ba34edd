"""Data: panels of series and images, named ones and your own. One module a source."""
