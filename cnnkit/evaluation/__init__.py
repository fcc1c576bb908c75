"""Error rates of trained networks by the test protocols of the papers."""

from cnnkit.evaluation.ensemble import EvaluatedModel as EvaluatedModel
from cnnkit.evaluation.evaluate import evaluate as evaluate
from cnnkit.evaluation.image_classifier import ImageClassifier as ImageClassifier
from cnnkit.evaluation.image_classifier import open_classifier as open_classifier
from cnnkit.evaluation.localize import FileLocalization as FileLocalization
from cnnkit.evaluation.localize import LocalizationErrors as LocalizationErrors
from cnnkit.evaluation.localize import localize as localize
from cnnkit.evaluation.localize import measure_localization as measure_localization
from cnnkit.evaluation.localizer import Localizer as Localizer
from cnnkit.evaluation.localizer import LocatedObject as LocatedObject
from cnnkit.evaluation.metrics import CalibrationResult as CalibrationResult
from cnnkit.evaluation.metrics import ClassErrors as ClassErrors
from cnnkit.evaluation.metrics import Evaluation as Evaluation
from cnnkit.evaluation.metrics import ImagePrediction as ImagePrediction
from cnnkit.evaluation.metrics import ModelErrors as ModelErrors
from cnnkit.evaluation.metrics import ReliabilityBin as ReliabilityBin
from cnnkit.evaluation.metrics import wilson_interval as wilson_interval
from cnnkit.evaluation.predict import FilePrediction as FilePrediction
from cnnkit.evaluation.predict import predict as predict
from cnnkit.evaluation.protocols import PROTOCOLS as PROTOCOLS
from cnnkit.evaluation.protocols import TestProtocol as TestProtocol
