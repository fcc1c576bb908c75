"""Command line of cnnkit: one module a verb in `commands`, and what the verbs share."""
