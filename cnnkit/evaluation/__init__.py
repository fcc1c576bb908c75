"""How often trained networks are wrong, by the protocols of the papers."""

from cnnkit.evaluation.evaluating import evaluate as evaluate
from cnnkit.evaluation.measures import Calibration as Calibration
from cnnkit.evaluation.measures import ReliabilityBin as ReliabilityBin
from cnnkit.evaluation.measures import wilson as wilson
from cnnkit.evaluation.members import Member as Member
from cnnkit.evaluation.protocols import PROTOCOLS as PROTOCOLS
from cnnkit.evaluation.protocols import Protocol as Protocol
from cnnkit.evaluation.results import Answer as Answer
from cnnkit.evaluation.results import ClassErrors as ClassErrors
from cnnkit.evaluation.results import Evaluation as Evaluation
from cnnkit.evaluation.results import MemberErrors as MemberErrors
