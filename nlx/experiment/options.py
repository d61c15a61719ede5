"""The options that every recipe shares, and their checks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

from nlx.arguments import ArgumentError
from nlx.data.prepare import Augmentation
from nlx.methods.top import MOST_GIB
from nlx.models import NAMES

Schedule = Literal["step", "cosine", "constant"]
Dtype = Literal["float32", "bfloat16"]
Optimizer = Literal["sgd", "nesterov", "adam", "adamw", "lars"]


@dataclass(frozen=True)
class RecipeOptions:
    """Options of every recipe. What is left at None comes from nlx/experiment/defaults.py; config.json records it."""

    single_label_rate: ClassVar[float] = math.inf
    # The largest learning rate by default where an example has one label: a recipe may need a smaller one.
    several_labels: ClassVar[Mapping[str, Any]] = {}
    # A recipe's own defaults where an example has several labels: fields of nlx.experiment.defaults.Training.

    dataset: str = "web"
    """web (the WEB set where it lies under DATA_DIR/web, else the embedded sample web/sample), digits, mnist,
    fashion_mnist, tags (the embedded tags/sample: words and objects), coco_captions, coco_tags, cifar10, cifar100,
    cifar10n, cifar100n, imagenet, clothing1m, food101n, webvision, webvision_mini, animal10n, voc2007, voc2012, svhn,
    svhn_extra (official files, see docs/data.md), npz:PATH (arrays of your own), folder:PATH or a folder (images with a
    labels.csv, or in folders by class), hf:PATH (Parquet), array_record:GLOB or tfds:NAME."""
    test: str | None = None
    """Another data set, to test on its test examples of the classes that both name, such as voc2007 for web."""
    labels: str | None = None
    """Which noisy labels, where the data has several: cifar10n has worst, aggregate, random1, random2, random3,
    clothing1m noisy, verified, clean, scored, food101n noisy, verified; an npz file's noisy_NAME is called NAME. Not
    together with NOISE."""
    noise: str | None = None
    """Synthetic noise on the true training labels, in place of the data's own noisy ones, KIND:RATE. symmetric: to any
    other class; pair: to the next one; asymmetric: to one that looks alike (CIFAR-10, digits); sparse: to a few;
    adversarial: to what a simple classifier confuses it with; instance: as the input has it; shuffle: CAN's vector
    shuffle; outlier: inputs from elsewhere; tags: missing and spurious ones, for label vectors; or none. Default:
    shuffle:0.4 for digits, the labels as they are for others."""
    data_dir: Path = Path("data")
    """Where data sets of your own lie."""
    image_size: int = 256
    """Images in folders are decoded to this many pixels, short side, centre cut; models see seven eighths of it
    (paper: 224)."""
    run_dir: Path | None = None
    """Where everything is written. Default: runs/NAME, after the method and the data."""
    distributed: str = "auto"
    """How several processes become one run: auto (a TPU slice, Slurm, Kubernetes, Open MPI), no, or for each of them
    ADDRESS:PORT,NUMBER,COUNT, such as localhost:9000,0,2 where the first one runs on this machine."""
    plan: str | None = None
    """Say what the run would take on each device, by compiling its step, and train nothing: here, cpu:N, a TPU slice
    that need not be here, such as v5e:2x4 (pip install 'nlx[tpu]'), or so many H100s, h100:8 (docs/scale.md)."""
    resume: bool = False
    """Go on with the run that lies in the run folder, from its last checkpoint."""
    model: str | None = None
    """Backbone: mlp, mlp-amt (the paper's 5376-1024-30-K for AMT), convnet, alexnet, vgg16, resnet8 to resnet101,
    preact18, preact34, vit-s16, vit-b16, dinov2-s14, dinov2-b14, with registers dinov2-s14-reg, dinov2-b14-reg,
    clip-b32, clip-b16 (image towers; OpenAI's own have another GELU: clip-b32-quick, clip-b16-quick). Default by data:
    mlp for features, digits and mnist, convnet for the samples of web and tags, resnet18 for images up to 64 pixels,
    resnet34 above (paper)."""
    init: Path | None = None
    """Weights to start from: safetensors with torchvision's or timm's names, of this backbone, or timm:NAME, such as
    timm:resnet50.a1_in1k, which is fetched from the hub, with pictures normalized as the weights want them; or the
    folder of a run, of any backbone, finished or not, or of an orbax checkpoint of parameters by our names, with inputs
    normalized by the data's own mean and spread (or as that run's, if it began with weights). The last layer is drawn
    anew where there is none, or one for another number of classes."""
    widths: tuple[int, ...] | None = None
    """Hidden widths of mlp or convnet. Default: the model's own."""
    dropout: float | None = None
    """Dropout rate. Default by data: 0.5 for features, else 0."""
    dtype: Dtype | None = None
    """Dtype of the backbone's computation; parameters and losses stay float32. Default: bfloat16 on TPUs and GPUs,
    float32 on CPUs."""
    augmentation: Augmentation | None = None
    """Random changes of training images. Default by data: none for digits and mnist, crop for the samples, else
    crop-flip. resized-crop-flip cuts parts of any size and shape, as is usual on ImageNet; with -rand, RandAugment
    comes before."""
    standardize: Literal["all", "each"] = "all"
    """Scale of features: one for all of them, or one for each, which suits features in units of their own."""
    six_crops: bool = False
    """Average the test predictions over six crops (paper), for images decoded larger than the model sees them."""
    epochs: int | None = None
    """Passes over the training set (paper 90). Default by data: 30 for features, mnist and the samples, else 90; of the
    CRF with several labels 40."""
    batch_size: int | None = None
    """Examples per step, over all devices (paper 50). Default by data: 50 for digits and images above 64 pixels, else
    128; of the CRF with several labels 32."""
    optimizer: Optimizer | None = None
    """Optimizer. Default: sgd (paper), of the CRF with several labels adam (its paper). nesterov: sgd with Nesterov's
    momentum; adamw: Adam whose weight decay is apart from the gradient and spares biases and normalizations; lars:
    layer by layer in proportion to the weights, for batches of thousands, decay and proportion of kernels alone."""
    average: float = 0.0
    """Predict by a running mean of the backbone's weights that keeps this share at a step, such as 0.999, and takes one
    copy more of them. Default: by the weights themselves."""
    clip: float | None = None
    """Cut the backbone's gradient to this length. Default: as it is."""
    accumulate: int = 1
    """Steps whose gradients are averaged before the weights move, for batches that do not fit into memory; no more than
    there are."""
    mix: Literal["none", "mixup", "cutmix"] = "none"
    """Train on pairs of examples: mixup, their mean at random weights; cutmix, one with a part of the other. The loss
    is the mean of both labels' at the same weights. Not for methods that keep something for each example."""
    mix_alpha: float = 0.2
    """The weights are drawn from Beta(MIX_ALPHA, MIX_ALPHA) (mixup's paper 0.2 for ImageNet, cutmix's 1)."""
    remat: bool = False
    """Compute the blocks of ResNets and ViTs again for the gradient: less memory, about a third more time."""
    ghost_batch: int | None = None
    """Examples that share the statistics of a ResNet's batch normalization while training, a divisor of the batch: of
    those that lie on one device, devices need not ask each other. Default: the whole batch."""
    learning_rate: float | None = None
    """First learning rate (paper 0.01). Default: 0.001 for Adam, else by data: 0.05 for features, mnist and the
    samples, 0.01 for others; ten times that for lars."""
    method_rate: float = 1.0
    """Learning rate of what the method trains beside the backbone, as a multiple of the backbone's (paper 1)."""
    momentum: float = 0.9
    """Momentum of sgd, or Adam's first decay rate (the paper names none; its code base uses 0.9)."""
    adam_epsilon: float = 1e-8
    """What Adam adds to its denominator (the CRF's paper: 1 for VGG-16, 0.1 for ResNet-50)."""
    weight_decay: float | None = None
    """L2 penalty on all weights, of adamw decay on kernels (the paper names none). Default by data: 5e-4 for features,
    else 0."""
    schedule: Schedule | None = None
    """Course of the learning rate over a stage (paper: step). Default by data: constant for the samples, else step."""
    warmup: float = 0.0
    """Share of a stage over which the learning rate rises from 0 before it takes its course."""
    decay_every: float = 1 / 3
    """The step schedule divides the learning rate by 10 after each such share of a stage (paper: every 30 of 90
    epochs)."""
    seed: int = 0
    """Seed of initialization, order and sampling; the data's noise has its own."""
    seeds: int = 1
    """How many seeds to run, from SEED upward; with several, results are given as mean and standard deviation."""
    noise_seed: int = 0
    """Seed of synthetic label noise."""
    training_fraction: float = 1.0
    """Share of the training examples to use, to see what less data do."""
    clean_fraction: float = 0.0
    """Share of the training examples whose true label may be learnt from, for methods that make use of it."""
    known_outliers: float = 0.0
    """Share of the outliers of --noise=outlier:RATE that are known to be outliers while training."""
    validation_fraction: float = 0.0
    """Share of the noisy training set to hold out and score against its noisy labels, to tune on."""
    evaluate_every: int = 1
    """Score the test set and the recovery of labels every so many epochs, and after the last."""
    evaluate_examples: int = 100_000
    """Before the last epoch, score the recovery of no more labels than so many, drawn at random."""
    checkpoint_seconds: float = 60.0
    """Write a checkpoint every so many seconds, less often where writing holds up more than a twentieth of the time;
    and always at the end, and before a stop."""
    checkpoint_dir: str | None = None
    """Where checkpoints are written: a folder, or gs://BUCKET/FOLDER (pip install 'nlx[gcs]'), that all processes reach
    and no other run uses. Default: in the run folder."""
    profile: bool = False
    """Write a profile of some early steps, which XProf shows, into the run folder."""
    in_memory_gib: float = 2.0
    """Images that would take more than this when decoded stay on disk and are read while training."""
    posterior_gib: float = MOST_GIB
    """Class probabilities of all training examples that would take more than this are kept of the ten likeliest classes
    alone, in half precision, where there is one label per example."""
    second_opinion: bool = True
    """Where held-out models find the method's cleaned labels no better than the given ones, join its belief with that
    of linear models in folds (`nlx.clean`), or take theirs alone if that is still worse: for one label per example,
    vectors and small images, and probabilities of all classes (--posterior_gib)."""
    shard_params: bool = False
    """Split wide parameters, and what the optimizer keeps for them, over the devices: arrays of 4 MiB or more, each
    along its longest axis that divides. Default: all of them on every device."""
    model_devices: int = 1
    """How many devices share the last layer and the method's transition matrix between them, by class; a divisor of the
    devices. Default: these are on every device."""
    spread_data: bool = False
    """Spread a training set in memory over the devices by example. Default: all of it on every device."""
    shuffle_groups: int = 1
    """Shuffle examples within so many groups of neighbours, a multiple of the devices, and take as many of a batch from
    each: what a method keeps of an example is then on the device that visits it, and nothing of it is sent. 1: shuffle
    all. Files are decoded by the host that has their group, epoch after epoch."""
    label_separator: str = ";"
    """What separates several labels of one picture in a labels.csv."""
    words: Path | None = None
    """For coco_captions, coco_tags and tags: a CSV file with the heading class,word and a row for each word that speaks
    of a class; words that the labels lack are told. Default: the class's own name, or all words of it (fire
    hydrant)."""
    skip_broken: bool = False
    """Leave out pictures of a folder that cannot be read; otherwise all are named, and nothing is trained."""
    allow_outside: bool = False
    """Take pictures that a labels.csv names outside its folder."""

    def check(self) -> None:
        """Raise an ArgumentError for the first value that cannot be meant."""
        require(self, "[1, 16384]", "image_size")
        require(self, "(0, inf)", "batch_size", "epochs", "learning_rate", "method_rate", "seeds", "evaluate_every")
        require(self, "(0, inf)", "evaluate_examples", "clip", "accumulate", "mix_alpha", "ghost_batch")
        require(self, "(0, inf)", "model_devices", "shuffle_groups")
        require(self, "[0, 1)", "momentum", "dropout", "warmup", "average")
        require(self, "[0, 1)", "clean_fraction", "known_outliers", "validation_fraction")
        require(self, "[0, inf)", "weight_decay", "seed", "noise_seed", "checkpoint_seconds")
        require(self, "[0, inf)", "in_memory_gib", "posterior_gib")
        require(self, "(0, 1]", "training_fraction", "decay_every")
        require(self, "(0, inf)", "adam_epsilon")
        if self.mix == "none":
            refuse_idle(self, "without `mix`", "mix_alpha")
        for name in ("seed", "noise_seed"):
            require(self, f"[0, {2**32})", name)
        if self.seed + self.seeds > 2**32:
            raise ArgumentError(f"`seed` and `seeds` must sum to {2**32} at most, got {self.seed} and {self.seeds}")
        if not self.label_separator:
            raise ArgumentError("`label_separator` must not be empty; write ; say")
        if self.widths is not None and not (self.widths and min(self.widths) > 0):
            raise ArgumentError(f"`widths` must be above 0, got {' '.join(map(str, self.widths)) or 'none'}")
        if self.model is not None and self.model not in NAMES:
            raise ArgumentError(f"`model`={self.model} is not known; choose one of {', '.join(NAMES)}")


def require(options: RecipeOptions, interval: str, *names: str) -> None:
    """Raise an ArgumentError for the first option that does not lie in an interval, such as ``[0, 1)`` or ``(0, inf)``.

    None passes, for it means a default; NaN and infinity do not.
    """
    low, high = (text.strip() for text in interval[1:-1].split(","))
    for name in names:
        value = getattr(options, name)
        if value is None:
            continue
        inside = value > float(low) if interval[0] == "(" else value >= float(low)
        inside &= value < float(high) if interval[-1] == ")" else value <= float(high)
        if not (inside and math.isfinite(value)):
            at_least = f"be {'above' if interval[0] == '(' else 'at least'} {low}"
            wanted = "be finite" if low == "-inf" else at_least if high == "inf" else f"lie in {interval}"
            raise ArgumentError(f"`{name}` must {wanted}, got {value}")


def refuse_idle(options: RecipeOptions, where: str, *names: str) -> None:
    """Raise an ArgumentError for the first option that is not at its default where it does nothing.

    Args:
      options: the recipe's.
      where: what makes it do nothing, such as "with `loss`=mae".
      names: of the options.
    """
    defaults = {field.name: field.default for field in fields(options)}
    for name in names:
        if getattr(options, name) != defaults[name]:
            raise ArgumentError(f"`{name}` does nothing {where}: leave it out")
