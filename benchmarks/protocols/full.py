"""The papers' tables at full size: for each row a recipe with the paper's data, backbone, weights and options.

What a paper leaves open is marked `ours` where it is chosen here.
"""

from __future__ import annotations

from typing import Any

from benchmarks.protocols.full_rows import Full, of_baseline, of_can, of_clean_net, of_crf, of_layer, of_self, of_types
from benchmarks.protocols.runner import Entry
from recipes import icnm, joint_optimization

# CAN, section V.B: ResNet-34 on 224 pixels, batches of 50, 0.01 divided by 10 every 30 of 90 epochs, six crops.
_WEB: dict[str, Any] = {"dataset": "web", "model": "resnet34", "image_size": 256, "six_crops": True, "epochs": 90}
_WEB |= {"batch_size": 50, "learning_rate": 0.01, "schedule": "step", "augmentation": "crop-flip"}
_AMT = {"dataset": "npz:amt.npz", "model": "mlp-amt", "epochs": 90, "batch_size": 50, "learning_rate": 0.01}
_AMT |= {"schedule": "step", "dropout": 0.0, "weight_decay": 0.0}
_CAN_ROWS = ("plain", "LearnQ", "ICNM", "Bootstrap", "CAN")


def _beside_can(paper: tuple[float, ...], measure: str, **options: Any) -> Full:
    entries = (
        of_baseline("binary_cross_entropy" if measure == "test_map" else "cross_entropy", **options),
        of_layer(**options),
        Entry(icnm.ICNMOptions(**options), icnm.train),
        of_baseline("bootstrap_soft", **options),
        of_can(**options),
    )
    remark = "LearnQ is the noise layer, Bootstrap the soft one"
    return Full(dict(zip(_CAN_ROWS, entries, strict=True)), dict(zip(_CAN_ROWS, paper, strict=True)), measure, remark)


def _can_noise() -> Full:
    options = {**_WEB, "dataset": "voc2007"}
    rates = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    paper = {"plain": (86.8, 78.2, 70.2, 53.0, 33.4, 6.4), "CAN": (85.3, 83.6, 79.4, 63.2, 36.1, 8.6)}
    rows = {
        f"{name}, {rate:g}": make(noise=f"shuffle:{rate:g}", **options)
        for name, make in (("plain", of_baseline), ("CAN", of_can))
        for rate in rates
    }
    figures = {f"{name}, {rate:g}": v for name, values in paper.items() for rate, v in zip(rates, values, strict=True)}
    return Full(rows, figures, "test_map")


def _regularizers() -> Full:
    values = dict(zip((0, 0.2, 0.5, 1, 2, 5, 10), (82.9, 83.5, 84.8, 83.6, 80.7, 78.8, 77.0), strict=True))
    rows = {f"{v:g}": of_can(regularizer=float(v), test="voc2007", **_WEB) for v in values}
    return Full(rows, {f"{v:g}": figure for v, figure in values.items()}, "test_map")


# CRF, section 4: weights of ImageNet, Adam with large epsilons, alpha from 40 to 5 in 11 epochs.
_COCO: dict[str, Any] = {"dataset": "coco_captions", "model": "resnet50", "init": "resnet50.safetensors"}
_COCO |= {"image_size": 256, "optimizer": "adam", "learning_rate": 0.0003, "adam_epsilon": 0.1, "epochs": 30}
_COCO |= {"schedule": "constant", "batch_size": 64, "augmentation": "crop-flip"}
_FIELD = {"hidden": 200, "alpha_share": 11 / 30}


def _captions() -> Full:
    rows = {
        "clean": of_baseline("clean", **_COCO),
        "noisy": of_baseline(**_COCO),
        **{name: of_crf(field=name, **_COCO, **_FIELD) for name in ("no_pairwise", "no_hidden", "hidden", "no_link")},
        "alpha 0": of_crf(field="no_link", alpha_start=0.0, alpha_end=0.0, **_COCO, **_FIELD),
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
    rates = (0.1, 0.2, 0.3, 0.4, 0.5)
    recovered = {
        "plain": (94.1, 92.4, 89.6, 85.2, 74.6),
        "forward": (94.6, 93.6, 92.3, 91.1, 83.1),
        "CRF": (97.7, 96.4, 95.1, 93.5, 88.1),
    }
    beside = {f"{name}, {r}": v for name, by in recovered.items() for r, v in zip(rates, by, strict=True)}
    for rate, *values in zip(rates, *figures.values(), strict=True):
        noisy: dict[str, Any] = {**options, "noise": f"asymmetric:{rate}"}
        entries = (
            of_baseline(**noisy),
            of_baseline("backward", transition="true", **noisy),
            of_baseline("forward", transition="true", **noisy),
            of_crf(transition="true", alpha_start=8.0, alpha_end=1.0, alpha_share=10 / 200, **noisy),
        )
        for name, entry, value in zip(figures, entries, values, strict=True):
            rows[f"{name}, {rate}"], paper[f"{name}, {rate}"] = entry, value
    remark = "learning rate, batch and decay are those of He et al., 2016"
    return Full(rows, paper, remark=remark, beside={"recovery": beside})


# Noise types, section 5: AlexNet, 0.001 divided by 10 every 50,000 iterations of Caffe's batches of 256.
_CLOTHES: dict[str, Any] = {"dataset": "clothing1m", "labels": "clean", "model": "alexnet", "image_size": 256}
_CLOTHES |= {"learning_rate": 0.001, "schedule": "step", "batch_size": 256, "dropout": 0.5, "weight_decay": 5e-4}
_CLOTHES |= {"augmentation": "crop-flip", "epochs": 26, "pretrain_epochs": 90, "types_epochs": 30}
_ALEXNET = {"init": "alexnet.safetensors"}


def _strategies() -> Full:
    rows = {
        "clean only, random": of_types("clean_only", **_CLOTHES),
        "clean only, ImageNet": of_types("clean_only", **_ALEXNET, **_CLOTHES),
        "mixed, random": of_types("mixed", **_CLOTHES),
        "mixed, ImageNet": of_types("mixed", **_ALEXNET, **_CLOTHES),
        "bottom up": of_types("bottom_up", **_ALEXNET, **_CLOTHES),
        "noise types": of_types("noise_types", **_ALEXNET, **_CLOTHES),
    }
    paper = dict(zip(rows, (64.54, 72.63, 74.03, 75.30, 76.22, 78.24), strict=True))
    return Full(rows, paper, remark="epochs are ours (26 of noisy and clean are three drops of the rate)")


# The noise layer, section 4: cuda-convnet's three layers on 32 pixels, AlexNet on ImageNet.
def _layers(dataset: str, learn_from: float, rate: float, share: float = 1.0) -> dict[str, Entry]:
    options: dict[str, Any] = {"dataset": dataset, "model": "convnet", "epochs": 100, "batch_size": 128}
    options |= {"learning_rate": 0.01, "noise": f"sparse:{rate:g}" if rate else "none", "training_fraction": share}
    return {
        "plain": of_baseline(**options),
        "learned T": of_layer(learn_from=learn_from, strength=0.1, **options),
        "true T": of_layer("given", transition="true", **options),
    }


def _noise_rates() -> Full:
    rows: dict[str, Entry] = {}
    for dataset, learn_from in (("svhn_extra", 5.0), ("cifar10", 30.0)):
        for rate in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9):
            rows |= {f"{dataset}, {n}, {rate:g}": e for n, e in _layers(dataset, learn_from, rate).items()}
        for share in (0.1, 0.2, 0.5):
            by_name = _layers(dataset, learn_from, 0.5, share)
            rows |= {f"{dataset}, {name}, 0.5, {share:.0%} of the examples": e for name, e in by_name.items()}
    remark = "curves in the paper: plain copes to 30 %, the layer to 70 %; network and shares of the examples are ours"
    return Full(rows, {}, remark=remark)


_IMAGENET: dict[str, Any] = {"dataset": "imagenet", "image_size": 256, "augmentation": "crop-flip"}
_BY_ALEXNET = {"model": "alexnet", "dropout": 0.5, "weight_decay": 5e-4, "learning_rate": 0.01, "batch_size": 128}


def _half_flipped() -> Full:
    options: dict[str, Any] = {**_IMAGENET, **_BY_ALEXNET, "epochs": 90}
    rows = {
        "clean": of_baseline(noise="none", **options),
        "clean half": of_baseline(noise="none", training_fraction=0.5, **options),
    }
    for noise in ("sparse:0.5", "adversarial:0.4"):
        rows |= {
            f"plain, {noise}": of_baseline(noise=noise, **options),
            f"learned T, {noise}": of_layer(noise=noise, **options),
            f"true T, {noise}": of_layer("given", transition="true", noise=noise, **options),
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
            ("plain", lambda noise: of_baseline(**{**options, "known_outliers": 0.0}, noise=noise)),
            ("outlier class", lambda noise: of_layer("outliers", **options, noise=noise)),
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
    joint = joint_optimization.JointOptimizationOptions(**_SELF_CLOTHES)
    rows = {
        "CE": of_baseline(**_SELF_CLOTHES),
        "forward": of_baseline("forward", transition="anchors:CE", **_SELF_CLOTHES),
        "Joint": Entry(joint, joint_optimization.train),
        "SMP": of_self(**_SELF_CLOTHES),
        "forward, verified": of_baseline("forward", transition="trusted", labels="verified", **_SELF_CLOTHES),
        "SMP, verified": of_self(**_SELF_CLOTHES, **_VERIFIED),
        "CE, clean": of_types("finetune", labels="clean", pretrain_epochs=15, **_SELF_CLOTHES),
        "SMP, clean": of_self(**_SELF_CLOTHES, labels="clean", clean_epochs=15, clean_fraction=0.1),
    }
    paper = dict(zip(rows, (69.54, 69.84, 72.23, 74.45, 73.11, 76.44, 80.27, 81.16), strict=True))
    remark = "the first correction comes after 3 epochs, and the clean stage takes 15: ours; forward takes its matrix "
    remark += "from what CE predicts; Joint is its first training, with its own weights of prior and entropy"
    return Full(rows, paper, remark=remark)


def _sweep_self(**grids: tuple[tuple[Any, float], ...]) -> Full:
    cases = [(name, *case) for name, cases in grids.items() for case in cases]
    rows = {f"{name} {value}": of_self(**{name: value}, **_SELF_CLOTHES) for name, value, _ in cases}
    return Full(rows, {f"{name} {value}": figure for name, value, figure in cases if figure})


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
        for name, make in (("plain", of_baseline), ("learned T", of_layer))
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
        {f"{share:g}": of_can(training_fraction=share, test="voc2007", **_WEB) for share in (0.2, 0.4, 0.6, 0.8, 1.0)},
        {"0.2": 81.0, "1": 83.8},
        "test_map",
    ),
    "can-fig7": Full({"CAN": of_can(test="voc2007", **_WEB)}, {}, "test_map", "pictures of the run; likewise can-fig9"),
    "crf-1": _captions(),
    "crf-q": Full({"no_link": of_crf(**_COCO, **_FIELD)}, {"no_link": 69.4}, "recovery", "mAP of q, 49.4 at the start"),
    "crf-2": _flips(),
    "types-2": _strategies(),
    "types-fig8": Full(
        {"noise types": of_types("noise_types", **_ALEXNET, **_CLOTHES)},
        {"noise types": 80.0},
        "precision_500",
        "wrong labels of the 500 that are most probably confusing, where an untrusted picture's true label is known: "
        "Clothing1M has none, so that people have to judge those 500 of labels.parquet",
    ),
    "layer-fig3": _noise_rates(),
    "layer-1": _half_flipped(),
    "layer-fig5": _foreign(),
    "self-1": _self_1(),
    "self-2": Full(
        {"SMP": of_self(labels="scored", **_SELF_CLOTHES)},
        {"SMP": 77.36},
        "recovery",
        "labels as given, after the first correction, and at the end",
        {"given_label_recovery": {"SMP": 61.74}, "recovery_first_label": {"SMP": 74.38}},
    ),
    "self-3": _sweep_self(members=((320, 74.37), (640, 74.07), (1280, 74.45), (2560, 74.27))),
    "self-4": _sweep_self(select=(("density", 74.45), ("kmeans", 74.08), ("density_peaks", 74.11))),
    "self-5": Full(
        {
            "CE": of_baseline(**_SELF_FOOD),
            "CleanNet": of_clean_net(labels="verified", **_SELF_FOOD),
            "SMP": of_self(**_SELF_FOOD),
        },
        {"CE": 84.51, "CleanNet": 83.95, "SMP": 85.11},
    ),
    "self-fig4": _sweep_self(
        prototypes=tuple((p, 0.0) for p in (1, 2, 4, 6, 8, 10)),
        alpha=tuple((a, 0.0) for a in (0.0, 0.25, 0.5, 0.75, 1.0)),
    ),
    "imagenet-noise": _imagenet_noise(),
}
