"""Looking inside a network: results as data, which `cnnkit.figures` draws."""

from cnnkit.visualize.deconvnet import Projection as Projection
from cnnkit.visualize.deconvnet import deconvnet as deconvnet
from cnnkit.visualize.filters import Filters as Filters
from cnnkit.visualize.filters import filters as filters
