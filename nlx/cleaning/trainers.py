"""What trains on prepared features: linear models, for folds, and systems behind a small network."""

from __future__ import annotations

from functools import partial
from typing import Literal, NamedTuple

import jax
import optax
from flax import nnx

from nlx import losses
from nlx.arguments import ArgumentError
from nlx.data.dataset import Split
from nlx.methods.can import can, paper_schedule
from nlx.methods.method import Method
from nlx.methods.noise_layer import noise_layer
from nlx.methods.plain import cross_entropy, generalized_q, plain
from nlx.methods.self_learning import corrections, self_learning
from nlx.models import build
from nlx.training.mesh import make_mesh
from nlx.training.stages import Stage, cosine
from nlx.training.trainer import Trainer

# Of a linear softmax on prepared features; found on held-out noisy labels of CIFAR-10N, all of them and few.
_RATE, _DECAY, _Q = 0.5, 3e-3, 0.7
MANY, _LARGEST_DECAY = 32_000, 0.05  # examples that the decay is for: fewer need more of it
_BATCH, _EPOCHS, _STEPS = 256, 8, 400
_CAN_RATE = 0.04  # of its noise network, as a multiple of the classifier's: faster, it learns to copy the noisy label


MethodName = Literal["can", "generalized_ce", "noise_layer", "self_learning"]


class Setting(NamedTuple):
    """How linear models learn.

    Attributes:
      q: of generalized cross-entropy; the nearer to 0, the more a label counts that seems unlikely. Of several labels
        to an example there is none.
      decay: of the weights, as a multiple of what ten classes want.
    """

    q: float = _Q
    decay: float = 1.0


FEW_CLASSES = Setting()


def trainer_for(
    split: Split,
    method: Method | str | None,
    size: int,
    num_classes: int,
    hidden: tuple[int, ...] = (128,),
    epochs: int | None = None,
    setting: Setting = FEW_CLASSES,
) -> tuple[Trainer, Stage]:
    """A trainer of prepared features, linear or with a small network for a method, and how long to train ``size``.

    The linear one has generalized cross-entropy, or sigmoids for several labels, in a ``setting``.
    """
    width, single, fewest = split.inputs.shape[1], split.observed.ndim == 1, _EPOCHS if method is None else 20
    batch = min(_BATCH if method is None else 128, max(1, size // 4))
    epochs = max(fewest, -(-_STEPS // (size // batch))) if epochs is None else epochs
    mesh, stage = make_mesh(jax.local_devices()[:1]), Stage(epochs, schedule=cosine)
    if method is not None:
        rate = _CAN_RATE if method == "can" else 1.0
        if isinstance(method, str):
            method = method_named(method, num_classes, epochs, size // batch, single)
        rules = {part: optax.sgd(0.05 * at, momentum=0.9) for part, at in (("model", 1.0), ("method", rate))}
        optimizer = optax.partition(rules, {part: part for part in rules})
        network = build("mlp", (width,), num_classes, widths=hidden)
        return Trainer(network, method, optimizer, batch_size=batch, mesh=mesh), stage
    loss = partial(losses.generalized_cross_entropy, q=setting.q) if single else cross_entropy
    linear = partial(nnx.Linear, width, num_classes, kernel_init=nnx.initializers.zeros)
    decay = min(_DECAY * max(1.0, MANY / size) ** 0.7, _LARGEST_DECAY) * setting.decay
    optimizer = optax.chain(optax.add_decayed_weights(decay), optax.sgd(_RATE, momentum=0.9, nesterov=True))
    trainer = Trainer(lambda rngs: linear(rngs=rngs), plain(loss, "linear"), optimizer, batch_size=batch, mesh=mesh)
    return trainer, stage


def method_named(name: str, num_classes: int, epochs: int, steps: int, single: bool) -> Method:
    """A system by its name, for so many epochs of so many steps, and one label per example or several.

    Raises:
      ArgumentError: the name is not known, or the system is not for such labels.
    """
    falls = partial(paper_schedule, epochs * steps)
    generalized = plain(partial(losses.generalized_cross_entropy, q=generalized_q(num_classes)), "generalized_ce")
    methods = {
        "can": lambda: can(num_classes, temperature=falls(), rho=falls(floor=0.0)),
        "generalized_ce": lambda: generalized,
        "noise_layer": lambda: noise_layer(num_classes, learn_from=steps, multi_label=not single),
        "self_learning": lambda: self_learning(num_classes, refresh_after=corrections(min(3, epochs))),
    }
    if name not in methods:
        raise ArgumentError(f"`method` must be one of {', '.join(methods)}, or a Method, got {name!r}")
    if not single and name in ("generalized_ce", "self_learning"):
        raise ArgumentError(f"`method`={name} is for one label per example; take can or noise_layer")
    return methods[name]()
