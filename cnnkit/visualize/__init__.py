"""Looking inside a network: results as data, which `cnnkit.figures` draws."""

from cnnkit.models.receptive_field import Box as Box
from cnnkit.models.receptive_field import ReceptiveField as ReceptiveField
from cnnkit.models.receptive_field import receptive_field as receptive_field
from cnnkit.visualize.deconvnet import Projection as Projection
from cnnkit.visualize.deconvnet import deconvnet as deconvnet
from cnnkit.visualize.deconvnet import project as project
from cnnkit.visualize.filters import Filters as Filters
from cnnkit.visualize.filters import filters as filters
from cnnkit.visualize.occlusion import Occlusion as Occlusion
from cnnkit.visualize.occlusion import occlusion as occlusion
from cnnkit.visualize.stack import Step as Step
from cnnkit.visualize.stack import climb as climb
from cnnkit.visualize.stack import descend as descend
from cnnkit.visualize.strongest import Strongest as Strongest
from cnnkit.visualize.strongest import strongest as strongest
from cnnkit.visualize.top9 import Top as Top
from cnnkit.visualize.top9 import top9 as top9
from cnnkit.visualize.unpooling import Switches as Switches
from cnnkit.visualize.unpooling import pool as pool
from cnnkit.visualize.unpooling import unpool as unpool
