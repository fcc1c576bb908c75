"""Visualization of units and classes. Results are data; `cnnkit.figures` draws them."""

from cnnkit.models.receptive_field import Box as Box
from cnnkit.models.receptive_field import ReceptiveField as ReceptiveField
from cnnkit.models.receptive_field import receptive_field as receptive_field
from cnnkit.visualize.activation_maximization import SynthesizedImage as SynthesizedImage
from cnnkit.visualize.activation_maximization import (
    activation_maximization as activation_maximization,
)
from cnnkit.visualize.attribution.base import Attribution as Attribution
from cnnkit.visualize.attribution.cam import gradcam as gradcam
from cnnkit.visualize.attribution.cam import gradcam_plus_plus as gradcam_plus_plus
from cnnkit.visualize.attribution.cam import scorecam as scorecam
from cnnkit.visualize.attribution.explain_class import EXPLANATION_METHODS as EXPLANATION_METHODS
from cnnkit.visualize.attribution.explain_class import explain_class as explain_class
from cnnkit.visualize.attribution.saliency import saliency as saliency
from cnnkit.visualize.attribution.saliency import smoothgrad as smoothgrad
from cnnkit.visualize.attribution.sanity_check import AttributionComparison as AttributionComparison
from cnnkit.visualize.attribution.sanity_check import compare_attributions as compare_attributions
from cnnkit.visualize.correspondence import Correspondence as Correspondence
from cnnkit.visualize.correspondence import correspondence as correspondence
from cnnkit.visualize.deconvnet.layerwise import LayerwiseStep as LayerwiseStep
from cnnkit.visualize.deconvnet.layerwise import Switches as Switches
from cnnkit.visualize.deconvnet.layerwise import backward_steps as backward_steps
from cnnkit.visualize.deconvnet.layerwise import forward_steps as forward_steps
from cnnkit.visualize.deconvnet.layerwise import pool_with_switches as pool_with_switches
from cnnkit.visualize.deconvnet.layerwise import unpool as unpool
from cnnkit.visualize.deconvnet.project import Projection as Projection
from cnnkit.visualize.deconvnet.project import deconvnet as deconvnet
from cnnkit.visualize.deconvnet.project import project as project
from cnnkit.visualize.feature_evolution import FeatureEvolution as FeatureEvolution
from cnnkit.visualize.feature_evolution import feature_evolution as feature_evolution
from cnnkit.visualize.filters import Filters as Filters
from cnnkit.visualize.filters import filters as filters
from cnnkit.visualize.invariance import Invariance as Invariance
from cnnkit.visualize.invariance import invariance as invariance
from cnnkit.visualize.invariance import transform_image as transform_image
from cnnkit.visualize.occlusion.occlusion import OcclusionMaps as OcclusionMaps
from cnnkit.visualize.occlusion.occlusion import occlusion as occlusion
from cnnkit.visualize.second_layer import SecondLayerFilters as SecondLayerFilters
from cnnkit.visualize.second_layer import second_layer_filters as second_layer_filters
from cnnkit.visualize.top9 import UnitExamples as UnitExamples
from cnnkit.visualize.top9 import project_top as project_top
from cnnkit.visualize.top9 import top9 as top9
from cnnkit.visualize.top_activations import TopActivations as TopActivations
from cnnkit.visualize.top_activations import find_top_activations as find_top_activations
