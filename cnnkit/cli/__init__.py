"""Command line of cnnkit: one module per command in `commands`, and the modules they share."""
