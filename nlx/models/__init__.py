"""Networks that map inputs to logits and features, as Flax modules and as pure functions.

Import what is named here. Imports no other folder of nlx.
"""

from nlx.models.convnet import ConvNet
from nlx.models.head import Outputs
from nlx.models.mixed_pair import mixed_pair
from nlx.models.mlp import AMT_WIDTHS, MLP
from nlx.models.model import NAMES, Model, Params, Stats, build, from_nnx, prepared
from nlx.models.pair import pair
from nlx.models.resnet import DEPTHS, ResNet

__all__ = [
    "AMT_WIDTHS",
    "DEPTHS",
    "MLP",
    "NAMES",
    "ConvNet",
    "Model",
    "Outputs",
    "Params",
    "ResNet",
    "Stats",
    "build",
    "from_nnx",
    "mixed_pair",
    "pair",
    "prepared",
]
