"""Images and labels: where they come from, and how they become batches."""

from cnnkit.data.augmentation import Augmentation as Augmentation
from cnnkit.data.augmentation import ColourComponents as ColourComponents
from cnnkit.data.augmentation import ColourNoise as ColourNoise
from cnnkit.data.broken import naming_broken_images as naming_broken_images
from cnnkit.data.checking import check as check
from cnnkit.data.image import decode as decode
from cnnkit.data.image import fit as fit
from cnnkit.data.pipeline import batches as batches
from cnnkit.data.resident import resident as resident
from cnnkit.data.sharding import write_shards as write_shards
from cnnkit.data.sources import load_source as load_source
from cnnkit.data.split import Source as Source
from cnnkit.data.split import Split as Split
from cnnkit.data.statistics import colour_components as colour_components
from cnnkit.data.statistics import mean_colour as mean_colour
from cnnkit.data.statistics import mean_image as mean_image
