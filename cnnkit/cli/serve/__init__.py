"""Parts of `cnnkit serve`: the options of the embedded server, and the servers it can run."""
