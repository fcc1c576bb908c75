"""Results of the papers, run again: each seed is recorded when it is done, and not run twice."""

from cnnkit.reproduction.reproduce import Reproduction as Reproduction
from cnnkit.reproduction.reproduce import reproduce as reproduce
