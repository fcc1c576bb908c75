"""Loaders of datasets, one module per kind of source."""
