"""Small breaks of the package, and whether its tests notice them: `make mutants`."""
