"""Occlusion sensitivity (Zeiler & Fergus 2013, section 4.2)."""
