"""The real data of the small protocols, as options of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.protocols.runner import RESULTS, Runner
from nlx.data.sources.idx import DEBIAN
from nlx.files import replacing

EVALUATE_EVERY = 5
NUM_TRAIN = 40_000  # of the official training images; the others are the test set, as in the features
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

UNREGULARIZED = {"momentum": 0.0, "dropout": 0.0, "weight_decay": 0.0, "second_opinion": False}
"""What the tables set instead of the defaults, so that what a method is worth does not hide behind regularization, nor
behind models in folds."""


class Missing(Exception):
    """Data that a table is made of are not there; the message says where they should be."""


def features(runner: Runner) -> Path | None:
    """The file of CIFAR-10N as features, where it lies."""
    path = runner.shared / "data" / "cifar10n_features.npz"
    return path if path.exists() else None


def needed_features(runner: Runner) -> Path:
    """The same file, for a table that cannot do without.

    Raises:
      Missing: it is not there.
    """
    path = features(runner)
    if path is None:
        raise Missing(f"there is no data/cifar10n_features.npz in {runner.shared}; say with --shared where it is")
    return path


def human(runner: Runner, labels: str = "worst") -> dict[str, Any]:
    """Options of CIFAR-10N as features, the same for all: a learning rate at which plain training memorizes.

    Raises:
      Missing: the file is not there.
    """
    path = needed_features(runner)
    training = {**UNREGULARIZED, "schedule": "constant", "learning_rate": 0.05, "epochs": 30}
    return {"dataset": f"npz:{path}", "labels": labels, **training, "evaluate_every": EVALUATE_EVERY}


def named(runner: Runner) -> dict[str, Any]:
    """Options of CIFAR-10's features whose classes have their names, for noise that goes by them.

    Raises:
      Missing: the file is not there.
    """
    options = human(runner)
    path = RESULTS / "runs" / "cifar10_named.npz"
    if not path.exists():
        with np.load(options["dataset"].removeprefix("npz:")) as file, replacing(path) as to:
            kept = {name: file[name] for name in ("features", "label", "test_features", "test_label")}
            np.savez(to, class_names=np.array(CLASS_NAMES), **kept)
    return {**options, "dataset": f"npz:{path}", "labels": None}


def image_file(runner: Runner) -> Path | None:
    """The file of CIFAR-10N's images with their worst labels, made where it is not yet; None without its parts."""
    folder = runner.shared / "data"
    parts = [folder / f"cifar10_images_{i}.npz" for i in range(2)]
    labels = folder / "cifar10n_labels.npz"
    if not all(path.exists() for path in (*parts, labels)):
        return None
    path = RESULTS / "runs" / "cifar10n_images.npz"
    if not path.exists():
        pixels = np.concatenate([decoded(np.load(part)["d"]) for part in parts])
        true, worst = (np.load(labels)[key].astype(np.int32) for key in ("clean_label", "worse_label"))
        with replacing(path) as file:
            np.savez(
                file,
                image=pixels[:NUM_TRAIN],
                label=true[:NUM_TRAIN],
                noisy_worst=worst[:NUM_TRAIN],
                test_image=pixels[NUM_TRAIN:],
                test_label=true[NUM_TRAIN:],
                class_names=np.array(CLASS_NAMES),
            )
    return path


def images(runner: Runner) -> dict[str, Any] | None:
    """Options of a quarter of CIFAR-10N's images with their worst labels, None where they do not lie there.

    A small network without augmentation, which memorizes wrong labels within the 30 epochs as the one on features does.
    """
    path = image_file(runner)
    if path is None:
        return None
    network = {"model": "convnet", "widths": (16, 32, 64, 128), "augmentation": "none"}
    return {**human(runner), "dataset": f"npz:{path}", "training_fraction": 0.25, **network}


def decoded(differences: np.ndarray) -> np.ndarray:
    """Images uint8 ``[n, 32, 32, 3]`` from their differences along rows, columns and colours, ``[n, 3, 32, 32]``."""
    sums = np.cumsum(np.cumsum(differences, axis=2, dtype=np.uint8), axis=3, dtype=np.uint8)
    sums[:, 0] += sums[:, 1]
    sums[:, 2] += sums[:, 1]
    return sums.transpose(0, 2, 3, 1)


def pictures() -> dict[str, Any]:
    """Options of the set of pictures: a quarter of Fashion-MNIST where it lies, else the digits."""
    training = {**UNREGULARIZED, "schedule": "constant", "augmentation": "none", "model": "mlp"}
    if DEBIAN.exists():
        small = {"training_fraction": 0.25, "widths": (256, 256), "batch_size": 128}
        return {"dataset": "fashion_mnist", "epochs": 40, "learning_rate": 0.05, **small, **training}
    return {"dataset": "digits", "epochs": 90, "learning_rate": 0.05, "widths": (256, 256), **training}
