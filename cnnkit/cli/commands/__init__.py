"""The verbs of the `cnnkit` command, one module each."""
