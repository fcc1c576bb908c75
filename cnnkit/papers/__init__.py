"""The results of the three papers, and what was measured of them with this package."""

from cnnkit.papers.ledger import PAPERS as PAPERS
from cnnkit.papers.ledger import STATES as STATES
from cnnkit.papers.ledger import OwnResult as OwnResult
from cnnkit.papers.ledger import PaperResult as PaperResult
from cnnkit.papers.ledger import find_paper_result as find_paper_result
from cnnkit.papers.ledger import paper_results as paper_results
