"""The microscope: a folder of pages that show every unit of a network."""
