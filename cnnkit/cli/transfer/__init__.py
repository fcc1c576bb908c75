"""Parts of `cnnkit transfer`: its datasets and networks, and its two kinds of scores."""
