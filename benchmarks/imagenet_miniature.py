"""A miniature of ImageNet, trained as the real one would be: from weights, from files, killed, and on eight devices.

  python benchmarks/imagenet_miniature.py --record                      # 100 classes, 5,000 files of 256 pixels
  python benchmarks/imagenet_miniature.py --classes=5 --each=12 --side=64 --batch_size=16   # minutes

Noise layer, CAN and self-learning, each on one device and on eight forced ones, from random weights in torchvision's
names. A run of each is killed after its first checkpoint, goes on with --resume, and is compared bit for bit with the
one that was left alone; labels of eight devices are compared with those of one, whose sums have another order.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.faults import unlike
from benchmarks.miniatures import Maker, write_weights
from benchmarks.protocols.common import table
from nlx.cleaning.label_files import read_labels
from nlx.experiment.run_folder import versions

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "results" / "imagenet_miniature.md"
RECIPES: dict[str, tuple[str, ...]] = {
    "noise_layer": ("--learn_from=1",),
    "can": (),
    "self_learning": ("--start_epoch=1",),
}
DEVICES = (1, 8)


@dataclass(frozen=True)
class Options:
    """How large it is."""

    classes: int = 100
    """Classes."""
    each: int = 50
    """Training files of a class; of tests, half as many."""
    side: int = 256
    """Height of the files, pixels."""
    image_size: int = 80
    """Pixels that they are decoded to; models see seven eighths of them."""
    model: str = "resnet8"
    """A ResNet."""
    epochs: int = 2
    """At least 2: a run is killed after the first."""
    batch_size: int = 64
    """Pictures of a step, over all devices."""
    noise: str = "symmetric:0.4"
    """Noise of the labels."""
    recipes: tuple[str, ...] = tuple(RECIPES)
    """Which of them."""
    folder: Path | None = None
    """Where files and runs stay; a folder that goes by default."""
    record: bool = False
    """Whether to write the page to benchmarks/results/imagenet_miniature.md."""


class Patterned(Maker):
    """Writes pictures that tell their class: a pattern of its own under noise."""

    def picture(self, name: str) -> str:
        """Write a picture; its name below the data folder comes back."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        of_class = np.random.default_rng(int(path.parent.name.removeprefix("n")))
        coarse = Image.fromarray(of_class.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        pattern = np.asarray(coarse.resize((self.side + 3, self.side), Image.Resampling.BICUBIC), np.int16)
        noisy = pattern + self.rng.integers(-60, 61, pattern.shape, dtype=np.int16)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path)
        return name


class Killed(NamedTuple):
    """A run that was killed and went on.

    Attributes:
      step: of the checkpoint that it had; 0 where it ended before it was killed.
      unlike: what differs from the run that was left alone; empty where nothing does.
    """

    step: int
    unlike: str


class Miniature:
    """The files, and recipes on them as processes of their own; what one has compiled is loaded by the next.

    Attributes:
      folder: of all of it.
    """

    def __init__(self, folder: Path, options: Options):
        self.folder, self._options = folder, options

    def make(self) -> None:
        """Write pictures and weights."""
        o = self._options
        Patterned(self.folder / "data", side=o.side, each=o.each, classes=o.classes).imagenet()
        write_weights(self.folder / "random.safetensors", o.model)

    def start(self, name: str, devices: int, run: str, *more: str) -> subprocess.Popen[str]:
        """A recipe's process."""
        o = self._options
        own = [*RECIPES[name], *more, f"--model={o.model}", f"--epochs={o.epochs}", f"--batch_size={o.batch_size}"]
        given = [f"--data_dir={self.folder}/data", f"--init={self.folder}/random.safetensors", f"--noise={o.noise}"]
        kept = [f"--run_dir={self.folder / run}", "--checkpoint_seconds=0", "--in_memory_gib=0"]
        command = [sys.executable, f"{ROOT}/recipes/{name}.py", "--dataset=imagenet", f"--image_size={o.image_size}"]
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(devices),
            "PYTHONPATH": str(ROOT),
            "JAX_COMPILATION_CACHE_DIR": str(self.folder / "compiled"),
        }
        return subprocess.Popen(
            [*command, *given, *kept, *own],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def whole(self, name: str, devices: int) -> float:
        """Run a recipe to its end, and count the seconds.

        Raises:
          RuntimeError: it failed, with what it said last.
        """
        began = time.monotonic()
        _ended(self.start(name, devices, f"{name}-{devices}"))
        return time.monotonic() - began

    def killed(self, name: str, devices: int) -> Killed:
        """Kill a recipe once it has a checkpoint, let it go on, and compare it with the one that was left alone.

        Raises:
          RuntimeError: it failed, with what it said last.
        """
        run = f"{name}-{devices}-killed"
        process, step = self.start(name, devices, run), 0
        while process.poll() is None and not step:
            step = _last_step(self.folder / run)
            time.sleep(0.02)
        process.kill()
        _, errors = process.communicate()
        if process.returncode > 0:
            raise RuntimeError(errors)
        if process.returncode == 0:
            return Killed(0, "")
        _ended(self.start(name, devices, run, "--resume"))
        return Killed(step, unlike(self.folder / run, self.folder / f"{name}-{devices}"))

    def row(self, name: str, devices: int) -> list[str]:
        """All that is found out about a recipe on so many devices, as a table has it."""
        seconds, cut = self.whole(name, devices), self.killed(name, devices)
        run = self.folder / f"{name}-{devices}"
        last = json.loads((run / "summary.json").read_text())["last"]
        resumed = f"after step {cut.step}: {cut.unlike or 'as uninterrupted'}" if cut.step else "ended before"
        same = "" if devices == 1 else like(run, self.folder / f"{name}-1")
        scores = [f"{100 * last[score]:.1f}" for score in ("test_accuracy", "recovery")]
        return [name, str(devices), f"{last['train_loss']:.4f}", *scores, f"{seconds:.0f}", resumed, same]

    @cached_property
    def files(self) -> int:
        """How many pictures there are to train on."""
        return sum(1 for _ in (self.folder / "data" / "imagenet" / "train").rglob("*.JPEG"))


def like(run: Path, other: Path) -> str:
    """How much a run's labels are those of another one."""
    ours, theirs = (read_labels(folder / "labels.parquet") for folder in (run, other))
    same = float(np.mean(ours.cleaned_label == theirs.cleaned_label))
    return f"{100 * same:.2f} %; {float(np.abs(ours.posterior - theirs.posterior).max()):.1e}"


def _last_step(run: Path) -> int:
    """Of the checkpoints that are whole; 0 without any."""
    folder = run / "checkpoints"
    return max((int(p.name) for p in folder.iterdir() if p.name.isdigit()), default=0) if folder.is_dir() else 0


def _ended(process: subprocess.Popen[str]) -> None:
    """Wait for its end.

    Raises:
      RuntimeError: it failed, with what it said.
    """
    _, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(errors)


HEAD = ["recipe", "devices", "training loss", "test accuracy, %", "recovery, %", "seconds", "killed, resumed"]
HEAD += ["labels as on one device; largest difference of a probability"]


def main() -> int:
    """Make the files, run all recipes, and print the page; 1 where a resumed run is not as an uninterrupted one."""
    options = tyro.cli(Options, description=__doc__, use_underscores=True)
    if options.epochs < 2:
        sys.exit(f"error: --epochs={options.epochs} must be at least 2: a run is killed after the first")
    with tempfile.TemporaryDirectory(prefix="nlx-imagenet-") as scratch:
        miniature, rows = Miniature(options.folder or Path(scratch), options), []
        miniature.make()
        for name in options.recipes:
            for devices in DEVICES:
                rows.append(miniature.row(name, devices))
                print(f"| {' | '.join(rows[-1])} |", file=sys.stderr, flush=True)
        page = "\n".join(page_of(options, miniature.files, rows))
    print(page)
    if options.record:
        RESULTS.write_text(page + "\n")
    return int(any("as uninterrupted" not in row[HEAD.index("killed, resumed")] for row in rows))


def page_of(options: Options, files: int, rows: list[list[str]]) -> list[str]:
    """The results' page, line by line."""
    about = ", ".join(f"{package} {version}" for package, version in versions().items())
    form = f"{options.model} on {options.image_size * 7 // 8} pixels, {options.epochs} epochs, batches of "
    return [
        "# ImageNet in miniature",
        "",
        f"{files:,} training files of {options.side} pixels in ImageNet's layout, {options.classes} classes, "
        f"{options.noise}; a {form}{options.batch_size}, from random weights in torchvision's names, files decoded in "
        "every epoch. Each run is killed by SIGKILL after its first checkpoint and goes on with `--resume`; *as "
        "uninterrupted* means the same files, scores and labels, bit for bit, as the run that was left alone. Eight "
        "devices are forced on one machine.",
        "",
        *table(HEAD, rows),
        "",
        f"`python benchmarks/imagenet_miniature.py`; {os.cpu_count()} cores, {platform.machine()}; {about}.",
    ]


if __name__ == "__main__":
    sys.exit(main())
