"""Readers of datasets, one module a kind of source."""
