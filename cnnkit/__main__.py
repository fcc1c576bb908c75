"""`python -m cnnkit` is the `cnnkit` command."""

import sys

from cnnkit.cli.main import main

sys.exit(main())
