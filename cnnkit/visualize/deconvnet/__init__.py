"""Deconvolutional networks (Zeiler & Fergus 2013, section 2.1)."""
