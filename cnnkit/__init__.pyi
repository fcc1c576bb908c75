# The one list of the names of `cnnkit`. Editors and type checkers read it, and so does
# `cnnkit/__init__.py`, which imports a name when it is first used.

from cnnkit import client as client
from cnnkit import data as data
from cnnkit import evaluation as evaluation
from cnnkit import export as export
from cnnkit import features as features
from cnnkit import layers as layers
from cnnkit import models as models
from cnnkit import training as training
from cnnkit import transfer as transfer
from cnnkit import visualize as visualize
from cnnkit._version import __version__ as __version__
from cnnkit.evaluation import evaluate as evaluate
from cnnkit.evaluation import localize as localize
from cnnkit.evaluation import predict as predict
from cnnkit.models import alexnet as alexnet
from cnnkit.models import alexnet_caffe as alexnet_caffe
from cnnkit.models import alexnet_one_weird_trick as alexnet_one_weird_trick
from cnnkit.models import alexnet_torchvision as alexnet_torchvision
from cnnkit.models import caffenet as caffenet
from cnnkit.models import cifar10_full as cifar10_full
from cnnkit.models import cifar10_quick as cifar10_quick
from cnnkit.models import load_model as load_model
from cnnkit.models import vgg as vgg
from cnnkit.models import vgg11 as vgg11
from cnnkit.models import vgg11_lrn as vgg11_lrn
from cnnkit.models import vgg13 as vgg13
from cnnkit.models import vgg16 as vgg16
from cnnkit.models import vgg16_c as vgg16_c
from cnnkit.models import vgg19 as vgg19
from cnnkit.models import zfnet as zfnet
from cnnkit.reports.microscope.write import write_microscope as write_microscope
from cnnkit.reports.write import write_report as write_report
from cnnkit.training import finetune as finetune
from cnnkit.training import train as train
