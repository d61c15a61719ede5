"""The papers' tables at full size: for each row a recipe with the paper's data, backbone, weights and options.

What a paper leaves open is marked `ours` where it is chosen here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from benchmarks.protocols.runner import Entry
from recipes import baseline, can, crf, icnm, noise_layer, noise_types, self_learning


class Full(NamedTuple):
    """A table.

    Attributes:
      rows: what to run, by name; files of weights and of arrays are named without their folder.
      paper: its figures by row, percent.
      measure: the score that they are of.
      remark: what differs from the paper or is chosen here.
    """

    rows: dict[str, Entry]
    paper: dict[str, float]
    measure: str = "test_accuracy"
    remark: str = ""


def _baseline(loss: Any = "cross_entropy", **options: Any) -> Entry:
    return Entry(baseline.BaselineOptions(loss=loss, **options), baseline.train)


def _layer(layer: Any = "learned", **options: Any) -> Entry:
    return Entry(noise_layer.NoiseLayerOptions(layer=layer, **options), noise_layer.train)


def _can(**options: Any) -> Entry:
    paper = {"method_rate": 1.0, "tau_rate": 3e-5, "rho_rate": 3e-5, "rho_floor": 0.5}
    return Entry(can.CANOptions(**{**paper, **options}), can.train)


def _self(**options: Any) -> Entry:
    return Entry(
        self_learning.SelfLearningOptions(
            center=False, typical_only=False, keep_good=False, clean_with="prototypes", **options
        ),
        self_learning.train,
    )


def _types(strategy: Any, **options: Any) -> Entry:
    return Entry(noise_types.NoiseTypesOptions(strategy=strategy, **options), noise_types.train)


def _crf(**options: Any) -> Entry:
    return Entry(crf.CRFOptions(**options), crf.train)


# CAN, section V.B: ResNet-34 on 224 pixels, batches of 50, 0.01 divided by 10 every 30 of 90 epochs, six crops.
_WEB: dict[str, Any] = {"dataset": "web", "model": "resnet34", "image_size": 256, "six_crops": True, "epochs": 90}
_WEB |= {"batch_size": 50, "learning_rate": 0.01, "schedule": "step", "augmentation": "crop-flip"}
_AMT = {"dataset": "npz:amt.npz", "model": "mlp-amt", "epochs": 90, "batch_size": 50, "learning_rate": 0.01}
_AMT |= {"schedule": "step", "dropout": 0.0, "weight_decay": 0.0}
_CAN_ROWS = ("plain", "LearnQ", "ICNM", "Bootstrap", "CAN")


def _beside_can(paper: tuple[float, ...], measure: str, **options: Any) -> Full:
    entries = (
        _baseline("binary_cross_entropy" if measure == "test_map" else "cross_entropy", **options),
        _layer(**options),
        Entry(icnm.ICNMOptions(**options), icnm.train),
        _baseline("bootstrap_soft", **options),
        _can(**options),
    )
    remark = "LearnQ is the noise layer, Bootstrap the soft one"
    return Full(dict(zip(_CAN_ROWS, entries, strict=True)), dict(zip(_CAN_ROWS, paper, strict=True)), measure, remark)


def _can_noise() -> Full:
    options = {**_WEB, "dataset": "voc2007"}
    rates = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    paper = {"plain": (86.8, 78.2, 70.2, 53.0, 33.4, 6.4), "CAN": (85.3, 83.6, 79.4, 63.2, 36.1, 8.6)}
    rows = {
        f"{name}, {rate:g}": make(noise=f"shuffle:{rate:g}", **options)
        for name, make in (("plain", _baseline), ("CAN", _can))
        for rate in rates
    }
    figures = {f"{name}, {rate:g}": v for name, values in paper.items() for rate, v in zip(rates, values, strict=True)}
    return Full(rows, figures, "test_map")


def _regularizers() -> Full:
    values = dict(zip((0, 0.2, 0.5, 1, 2, 5, 10), (82.9, 83.5, 84.8, 83.6, 80.7, 78.8, 77.0), strict=True))
    rows = {f"{v:g}": _can(regularizer=float(v), test="voc2007", **_WEB) for v in values}
    return Full(rows, {f"{v:g}": figure for v, figure in values.items()}, "test_map")


# CRF, section 4: weights of ImageNet, Adam with large epsilons, alpha from 40 to 5 in 11 epochs.
_COCO: dict[str, Any] = {"dataset": "coco_captions", "model": "resnet50", "init": "resnet50.safetensors"}
_COCO |= {"image_size": 256, "optimizer": "adam", "learning_rate": 0.0003, "adam_epsilon": 0.1, "epochs": 30}
_COCO |= {"schedule": "constant", "batch_size": 64, "augmentation": "crop-flip"}
_FIELD = {"hidden": 200, "alpha_share": 11 / 30}


def _captions() -> Full:
    rows = {
        "clean": _baseline("clean", **_COCO),
        "noisy": _baseline(**_COCO),
        **{name: _crf(field=name, **_COCO, **_FIELD) for name in ("no_pairwise", "no_hidden", "hidden", "no_link")},
        "alpha 0": _crf(field="no_link", alpha_start=0.0, alpha_end=0.0, **_COCO, **_FIELD),
    }
    paper = dict(zip(rows, (68.57, 56.88, 63.67, 64.26, 65.73, 66.61, 48.53), strict=True))
    return Full(rows, paper, "test_map", "epochs and batch are ours; the same with --dataset=coco_tags")


def _flips() -> Full:
    rows, paper = {}, {}
    options = {"dataset": "cifar10", "model": "resnet32", "epochs": 200, "batch_size": 128, "learning_rate": 0.1}
    options |= {"weight_decay": 1e-4, "augmentation": "crop-flip"}
    figures = {
        "plain": (91.2, 90.0, 89.1, 87.1, 80.2),
        "backward": (87.4, 87.4, 84.6, 76.5, 45.6),
        "forward": (90.9, 90.3, 89.4, 88.4, 80.0),
        "CRF": (91.6, 91.0, 90.6, 89.4, 84.3),
    }
    for rate, *values in zip((0.1, 0.2, 0.3, 0.4, 0.5), *figures.values(), strict=True):
        noisy: dict[str, Any] = {**options, "noise": f"asymmetric:{rate}"}
        entries = (
            _baseline(**noisy),
            _baseline("backward", transition="true", **noisy),
            _baseline("forward", transition="true", **noisy),
            _crf(transition="true", alpha_start=8.0, alpha_end=1.0, alpha_share=10 / 200, **noisy),
        )
        for name, entry, value in zip(figures, entries, values, strict=True):
            rows[f"{name}, {rate}"], paper[f"{name}, {rate}"] = entry, value
    return Full(rows, paper, remark="learning rate, batch and decay are those of He et al., 2016; recovery beside")


# Noise types, section 5: AlexNet, 0.001 divided by 10 every 50,000 iterations of Caffe's batches of 256.
_CLOTHES: dict[str, Any] = {"dataset": "clothing1m", "labels": "clean", "model": "alexnet", "image_size": 256}
_CLOTHES |= {"learning_rate": 0.001, "schedule": "step", "batch_size": 256, "dropout": 0.5, "weight_decay": 5e-4}
_CLOTHES |= {"augmentation": "crop-flip", "epochs": 26, "pretrain_epochs": 90, "types_epochs": 30}
_ALEXNET = {"init": "alexnet.safetensors"}


def _strategies() -> Full:
    rows = {
        "clean only, random": _types("clean_only", **_CLOTHES),
        "clean only, ImageNet": _types("clean_only", **_ALEXNET, **_CLOTHES),
        "mixed, random": _types("mixed", **_CLOTHES),
        "mixed, ImageNet": _types("mixed", **_ALEXNET, **_CLOTHES),
        "bottom up": _types("bottom_up", **_ALEXNET, **_CLOTHES),
        "noise types": _types("noise_types", **_ALEXNET, **_CLOTHES),
    }
    paper = dict(zip(rows, (64.54, 72.63, 74.03, 75.30, 76.22, 78.24), strict=True))
    return Full(rows, paper, remark="epochs are ours (26 of noisy and clean are three drops of the rate)")


# The noise layer, section 4: cuda-convnet's three layers on 32 pixels, AlexNet on ImageNet.
def _layers(dataset: str, epochs: int, learn_from: float, rate: float, noise: str) -> dict[str, Entry]:
    options: dict[str, Any] = {"dataset": dataset, "model": "convnet", "epochs": epochs, "batch_size": 128}
    options |= {"learning_rate": 0.01, "noise": f"{noise}:{rate:g}" if rate else "none"}
    return {
        "plain": _baseline(**options),
        "learned T": _layer(learn_from=learn_from, strength=0.1, **options),
        "true T": _layer("given", transition="true", **options),
    }


def _noise_rates() -> Full:
    rows = {
        f"{dataset}, {name}, {rate:g}": entry
        for dataset, learn_from in (("svhn_extra", 5.0), ("cifar10", 30.0))
        for rate in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
        for name, entry in _layers(dataset, 100, learn_from, rate, "sparse").items()
    }
    return Full(rows, {}, remark="curves in the paper: plain copes to 30 %, the layer to 70 %; ours is convnet")


_IMAGENET: dict[str, Any] = {"dataset": "imagenet", "image_size": 256, "augmentation": "crop-flip"}
_BY_ALEXNET = {"model": "alexnet", "dropout": 0.5, "weight_decay": 5e-4, "learning_rate": 0.01, "batch_size": 128}


def _half_flipped() -> Full:
    options: dict[str, Any] = {**_IMAGENET, **_BY_ALEXNET, "epochs": 90}
    rows = {
        "clean": _baseline(noise="none", **options),
        "clean half": _baseline(noise="none", training_fraction=0.5, **options),
    }
    for noise in ("sparse:0.5", "adversarial:0.4"):
        rows |= {
            f"plain, {noise}": _baseline(noise=noise, **options),
            f"learned T, {noise}": _layer(noise=noise, **options),
            f"true T, {noise}": _layer("given", transition="true", noise=noise, **options),
        }
    errors = (39.8, 48.5, 53.7, 45.2, 41.4, 50.5, 46.7, 43.3)
    remark = "the paper's errors as accuracies; epochs are ours"
    return Full(rows, {name: round(100 - e, 1) for name, e in zip(rows, errors, strict=True)}, remark=remark)


def _foreign() -> Full:
    options: dict[str, Any] = {"dataset": "cifar10", "model": "convnet", "epochs": 100, "batch_size": 128}
    options |= {"learning_rate": 0.01, "known_outliers": 0.1}
    rows = {
        f"{name}, {rate}": make(noise=f"outlier:{rate}")
        for rate in (0.2, 0.5, 0.8)
        for name, make in (
            ("plain", lambda noise: _baseline(**{**options, "known_outliers": 0.0}, noise=noise)),
            ("outlier class", lambda noise: _layer("outliers", **options, noise=noise)),
        )
    }
    return Full(rows, {}, remark="curves in the paper, with Tiny Images; here CIFAR-100's, which shares no class")


# Self-learning, section 4: ResNet-50, weights of ImageNet, 0.002 divided by 10 every 5 of 15 epochs.
_SELF: dict[str, Any] = {"model": "resnet50", "init": "resnet50.safetensors", "image_size": 256, "batch_size": 128}
_SELF |= {"learning_rate": 0.002, "weight_decay": 5e-3, "schedule": "step", "augmentation": "crop-flip"}
_SELF_CLOTHES = {**_SELF, "dataset": "clothing1m", "epochs": 15}
_SELF_FOOD = {**_SELF, "dataset": "food101n", "epochs": 30}
_VERIFIED = {"labels": "verified", "verified": True, "clean_fraction": 0.1}


def _self_1() -> Full:
    rows = {
        "CE": _baseline(**_SELF_CLOTHES),
        "forward": _baseline("forward", transition="trusted", labels="verified", **_SELF_CLOTHES),
        "SMP": _self(**_SELF_CLOTHES),
        "SMP, verified": _self(**_SELF_CLOTHES, **_VERIFIED),
        "CE, clean": _types("finetune", labels="clean", pretrain_epochs=15, **_SELF_CLOTHES),
        "SMP, clean": _self(**_SELF_CLOTHES, labels="clean", clean_epochs=15, clean_fraction=0.1),
    }
    paper = dict(zip(rows, (69.54, 73.11, 74.45, 76.44, 80.27, 81.16), strict=True))
    return Full(rows, paper, remark="the first correction comes after 3 epochs, and the clean stage takes 15: ours")


def _sweep_self(**grids: tuple[tuple[Any, float], ...]) -> Full:
    ((name, values),) = grids.items()
    rows = {f"{name} {value}": _self(**{name: value}, **_SELF_CLOTHES) for value, _ in values}
    return Full(rows, {f"{name} {value}": figure for value, figure in values if figure})


def _imagenet_noise() -> Full:
    options: dict[str, Any] = {
        **_IMAGENET,
        "model": "resnet50",
        "epochs": 90,
        "batch_size": 1024,
        "optimizer": "nesterov",
    }
    options |= {"learning_rate": 0.4, "weight_decay": 1e-4, "warmup": 5 / 90, "schedule": "cosine", "dtype": "bfloat16"}
    rows = {
        f"{name}, {kind}:{rate:g}": make(noise=f"{kind}:{rate:g}", **options)
        for kind in ("symmetric", "sparse", "adversarial", "instance")
        for rate in (0.1, 0.3, 0.5, 0.7, 0.9)
        for name, make in (("plain", _baseline), ("learned T", _layer))
        if (kind, rate) not in (("adversarial", 0.7), ("adversarial", 0.9))  # more than a classifier confuses
    }
    return Full(rows, {}, remark="no paper's: ResNet-50 and the usual recipe of ImageNet")


_V07, _V12 = (79.5, 80.4, 80.3, 81.9, 83.8), (80.7, 81.1, 81.2, 82.6, 84.4)
FULL: dict[str, Full] = {
    "can-2": _beside_can(_V07, "test_map", test="voc2007", **_WEB),
    "can-3": _beside_can(_V12, "test_map", test="voc2012", **_WEB),
    "can-4": _beside_can((77.2, 78.7, 78.9, 78.8, 81.7), "test_map", **_AMT),
    "can-5": _regularizers(),
    "can-6": _can_noise(),
    "can-fig6": Full(
        {f"{share:g}": _can(training_fraction=share, test="voc2007", **_WEB) for share in (0.2, 0.4, 0.6, 0.8, 1.0)},
        {"0.2": 81.0, "1": 83.8},
        "test_map",
    ),
    "can-fig7": Full({"CAN": _can(test="voc2007", **_WEB)}, {}, "test_map", "pictures of the run; likewise can-fig9"),
    "crf-1": _captions(),
    "crf-q": Full({"no_link": _crf(**_COCO, **_FIELD)}, {"no_link": 69.4}, "recovery", "mAP of q, 49.4 at the start"),
    "crf-2": _flips(),
    "types-2": _strategies(),
    "types-fig8": Full(
        {"noise types": _types("noise_types", **_ALEXNET, **_CLOTHES)}, {}, remark="pictures: 80 % in the top 500"
    ),
    "layer-fig3": _noise_rates(),
    "layer-1": _half_flipped(),
    "layer-fig5": _foreign(),
    "self-1": _self_1(),
    "self-2": Full({"SMP": _self(labels="scored", **_SELF_CLOTHES)}, {"SMP": 77.36}, "recovery", "61.74 as given"),
    "self-3": _sweep_self(members=((320, 74.37), (640, 74.07), (1280, 74.45), (2560, 74.27))),
    "self-4": _sweep_self(select=(("density", 74.45), ("kmeans", 74.08), ("density_peaks", 74.11))),
    "self-5": Full({"CE": _baseline(**_SELF_FOOD), "SMP": _self(**_SELF_FOOD)}, {"CE": 84.51, "SMP": 85.11}),
    "self-fig4": _sweep_self(prototypes=tuple((p, 0.0) for p in (1, 2, 4, 6, 8, 10))),
    "imagenet-noise": _imagenet_noise(),
}
