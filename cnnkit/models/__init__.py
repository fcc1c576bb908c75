"""The networks of the papers as Keras functional models, and operations on them."""

from __future__ import annotations

from cnnkit.models.alexnet import alexnet as alexnet
from cnnkit.models.alexnet import alexnet_caffe as alexnet_caffe
from cnnkit.models.alexnet import alexnet_one_weird_trick as alexnet_one_weird_trick
from cnnkit.models.alexnet import alexnet_torchvision as alexnet_torchvision
from cnnkit.models.alexnet import caffenet as caffenet
from cnnkit.models.cifar10 import cifar10_full as cifar10_full
from cnnkit.models.cifar10 import cifar10_quick as cifar10_quick
from cnnkit.models.class_names import class_index as class_index
from cnnkit.models.class_names import class_names as class_names
from cnnkit.models.class_names import set_class_names as set_class_names
from cnnkit.models.graph import get_layer as get_layer
from cnnkit.models.loading import load_model as load_model
from cnnkit.models.logits import logits_tensor as logits_tensor
from cnnkit.models.preprocessing import Preprocessing as Preprocessing
from cnnkit.models.registry import BUILDERS as BUILDERS
from cnnkit.models.registry import PAPERS as PAPERS
from cnnkit.models.registry import build as build
from cnnkit.models.registry import check_options as check_options
from cnnkit.models.summary import summarize_network as summarize_network
from cnnkit.models.surgery import SurgeryResult as SurgeryResult
from cnnkit.models.surgery import copy_weights as copy_weights
from cnnkit.models.surgery import group_kernel as group_kernel
from cnnkit.models.surgery import replace_head as replace_head
from cnnkit.models.surgery import resize_input as resize_input
from cnnkit.models.surgery import to_classifier as to_classifier
from cnnkit.models.surgery import to_dense_convolutions as to_dense_convolutions
from cnnkit.models.surgery import to_fully_convolutional as to_fully_convolutional
from cnnkit.models.surgery import to_grouped_convolutions as to_grouped_convolutions
from cnnkit.models.surgery import ungroup_kernel as ungroup_kernel
from cnnkit.models.vgg import vgg as vgg
from cnnkit.models.vgg import vgg11 as vgg11
from cnnkit.models.vgg import vgg11_lrn as vgg11_lrn
from cnnkit.models.vgg import vgg13 as vgg13
from cnnkit.models.vgg import vgg16 as vgg16
from cnnkit.models.vgg import vgg16_c as vgg16_c
from cnnkit.models.vgg import vgg19 as vgg19
from cnnkit.models.weights import WeightsFile as WeightsFile
from cnnkit.models.weights import open_weights as open_weights
from cnnkit.models.zfnet import zfnet as zfnet
