"""Coverage-guided fuzzing of every reader of foreign bytes: `make fuzz`."""

from tests.fuzz.readers import READERS
from tests.fuzz.wire import PARSERS

TARGETS = {**PARSERS, **READERS}
