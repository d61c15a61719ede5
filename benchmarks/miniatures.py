"""Small stand-ins of the papers' data, of noise, in their official layouts: to see that readers and commands run.

python benchmarks/miniatures.py data weights   # the second one: random weights in torchvision's names
"""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image
from safetensors.numpy import save_file
from scipy.io import savemat

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from nlx.data.sources.cifar import CLASS_NAMES as CIFAR10
from nlx.data.sources.cifar import FORMS
from nlx.data.sources.coco import WITHOUT_WORDS
from nlx.data.sources.official import ANIMALS, VOC_CLASSES
from nlx.models import build
from nlx.models.naming import naming

CLOTHES = (
    *("T-Shirt", "Shirt", "Knitwear", "Chiffon", "Sweater", "Hoodie", "Windbreaker", "Jacket", "Downcoat", "Suit"),
    *("Shawl", "Dress", "Vest", "Underwear"),
)
_SIDE = 64  # of pictures that weights are made for; none of them depends on it
OBJECTS = ("person", "cat", "dog", "fire hydrant", *WITHOUT_WORDS[:1])


class Maker:
    """Writes miniatures.

    Attributes:
      root: the data folder.
      side: of the pictures, pixels.
      each: training pictures of a class; of tests, half as many.
      classes: of those sets that have hundreds.
    """

    def __init__(self, root: Path, *, side: int = 40, each: int = 4, classes: int = 5):
        self.root, self.side, self.each, self.classes = root, side, each, classes
        self.rng = np.random.default_rng(0)

    def picture(self, name: str) -> str:
        """Write a picture; its name below the data folder comes back."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(self.rng.integers(0, 256, (self.side, self.side + 3, 3), dtype=np.uint8)).save(path)
        return name

    def text(self, name: str, rows: Sequence[str]) -> None:
        """Write a text file."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(rows) + "\n")

    def every(self, classes: Sequence[str], test: bool = False) -> list[tuple[int, str, int]]:
        """Class number, class and picture number of every picture."""
        some = max(1, self.each // 2) if test else self.each
        return [(c, name, i) for c, name in enumerate(classes) for i in range(some)]

    def imagenet(self) -> None:
        """Folders by class."""
        classes = [f"n{1440764 + c:08d}" for c in range(self.classes)]
        for part in ("train", "val"):
            for _, name, i in self.every(classes, part == "val"):
                self.picture(f"imagenet/{part}/{name}/{part}_{name}_{i}.JPEG")

    def clothing1m(self) -> None:
        """Noisy pictures, clean ones of which every other has a noisy label too, and a test set."""
        noisy, clean = [], []
        keys: dict[str, list[str]] = {}
        for part in ("noisy_train", "clean_train", "clean_test"):
            keys[part] = []
            for c, _, i in self.every(CLOTHES, part == "clean_test"):
                key = f"images/{c}/{part}{i},{c}.jpg"
                self.picture(f"clothing1m/{key}")
                keys[part].append(key)
                if part == "noisy_train" or (part == "clean_train" and i % 2):
                    noisy.append(f"{key} {(c + (i % 4 == 3)) % len(CLOTHES)}")
                if part != "noisy_train":
                    clean.append(f"{key} {c}")
            self.text(f"clothing1m/{part}_key_list.txt", keys[part])
        self.text("clothing1m/noisy_label_kv.txt", noisy)
        self.text("clothing1m/clean_label_kv.txt", clean)
        self.text("clothing1m/category_names_eng.txt", CLOTHES)

    def food101n(self) -> None:
        """The release with its verified labels, and Food-101's test list."""
        classes = [f"dish_{c:03d}" for c in range(self.classes)]
        names = [f"{name}/{i:032x}.jpg" for _, name, i in self.every(classes)]
        tests = [f"{name}/{1000 + i}" for _, name, i in self.every(classes, test=True)]
        for name in names:
            self.picture(f"food101n/Food-101N_release/images/{name}")
        for name in tests:
            self.picture(f"food101n/food-101/images/{name}.jpg")
        meta = "food101n/Food-101N_release/meta"
        self.text(f"{meta}/classes.txt", ["class_name", *classes])
        self.text(f"{meta}/imagelist.tsv", ["class_name/key", *names])
        checked = [f"{name}\t{int(i % 4 != 2)}" for i, name in enumerate(names) if i % 2 == 0]
        self.text(f"{meta}/verified_train.tsv", ["class_name/key\tverification_label", *checked])
        self.text("food101n/food-101/meta/test.txt", tests)

    def webvision(self) -> None:
        """More than 50 classes, for the mini version has the first 50."""
        classes = [f"n{1440764 + c:08d}" for c in range(50 + self.classes)]
        self.text("webvision/info/synsets.txt", [f"{name} name, other name" for name in classes])
        for source in ("google", "flickr"):
            names = [f"{source}/q{c:04d}/{i}.jpg {c}" for c, _, i in self.every(classes)]
            self.text(f"webvision/info/train_filelist_{source}.txt", names)
            for name in names:
                self.picture(f"webvision/{name.split()[0]}")
        vals = [f"val{n:06d}.jpg {c}" for n, (c, _, _) in enumerate(self.every(classes, test=True), 1)]
        self.text("webvision/info/val_filelist.txt", vals)
        for name in vals:
            self.picture(f"webvision/val_images_256/{name.split()[0]}")

    def animal10n(self) -> None:
        """Pictures called by their class."""
        for part in ("training", "testing"):
            for c, _, i in self.every(ANIMALS, part == "testing"):
                self.picture(f"animal10n/{part}/{c}_{i:06d}.jpg")

    def voc(self) -> None:
        """Both years."""
        for year, parts in ((2007, ("trainval", "test")), (2012, ("train", "val"))):
            base = f"VOCdevkit/VOC{year}"
            for p, part in enumerate(parts):
                names = [f"{100_000 * p + n:06d}" for n in range(len(self.every(VOC_CLASSES, p == 1)))]
                for name in names:
                    self.picture(f"{base}/JPEGImages/{name}.jpg")
                for c, name in enumerate(VOC_CLASSES):
                    marks = [1 if n % 20 == c else 0 if n % 20 == c + 1 else -1 for n in range(len(names))]
                    rows = [f"{one} {mark:2d}" for one, mark in zip(names, marks, strict=True)]
                    self.text(f"{base}/ImageSets/Main/{name}_{part}.txt", rows)

    def svhn(self) -> None:
        """Three files of 32 pixels, the digit 0 being 10."""
        (self.root / "svhn").mkdir(parents=True, exist_ok=True)
        for part in ("train", "test", "extra"):
            y = np.array([c or 10 for c, _, _ in self.every("0123456789", part == "test")], np.uint8)[:, None]
            images = self.rng.integers(0, 256, (32, 32, 3, len(y)), dtype=np.uint8)
            savemat(self.root / "svhn" / f"{part}_32x32.mat", {"X": images, "y": y})

    def cifar(self) -> None:
        """Both, as pickles, with people's labels."""
        for form in FORMS.values():
            classes = CIFAR10 if form.names is None else tuple(f"thing_{c}" for c in range(self.classes))
            folder = self.root / form.folders[0]
            folder.mkdir(parents=True, exist_ok=True)
            labels = []
            for file in (*form.train, form.test):
                label = [c for c, _, _ in self.every(classes, file == form.test)]
                pixels = self.rng.integers(0, 256, (len(label), 3072), dtype=np.uint8)
                (folder / file).write_bytes(pickle.dumps({b"data": pixels, form.label: label}))
                labels += [] if file == form.test else label
            if form.names is not None:
                listed = [name.encode() for name in classes]
                (folder / form.names[0]).write_bytes(pickle.dumps({form.names[1]: listed}))
            clean = np.array(labels)
            people = {key: (clean + (np.arange(len(clean)) % 5 == 0)) % len(classes) for key in form.human.values()}
            human = {"clean_label": clean, **people}
            np.save(self.root / f"{form.title}_human.npy", np.array(human, object), allow_pickle=True)

    def coco(self) -> None:
        """Captions and objects of 2014."""
        categories = [{"id": 3 * c + 1, "name": name} for c, name in enumerate(OBJECTS)]
        for p, part in enumerate(("train", "val")):
            images, objects, captions = [], [], []
            for n, (c, name, _) in enumerate(self.every(OBJECTS, test=part == "val")):
                number = 1000 * p + n
                file = f"COCO_{part}2014_{number:012d}.jpg"
                self.picture(f"{part}2014/{file}")
                images.append({"id": number, "file_name": file, "flickr_url": f"http://farm.com/{number}_x_z.jpg"})
                objects.append({"image_id": number, "category_id": 3 * c + 1})
                captions.append({"image_id": number, "caption": f"A {name} stands on the grass."})
            content = {"images": images, "categories": categories, "annotations": objects}
            self.text(f"annotations/instances_{part}2014.json", [json.dumps(content)])
            self.text(f"annotations/captions_{part}2014.json", [json.dumps({"annotations": captions})])

    def web(self) -> None:
        """WEB in the folder layout: VOC's classes as tags, of which some are wrong."""
        rows = ["path,noisy"]
        for c, name, i in self.every(VOC_CLASSES):
            self.picture(f"web/{name}/{i}.jpg")
            rows.append(f"{name}/{i}.jpg,{name};{VOC_CLASSES[(c + 1 + i) % len(VOC_CLASSES)]}")
        self.text("web/labels.csv", rows)

    def amt(self) -> None:
        """AMT's features with noisy labels of four dogs, SD4's to test on."""
        train, test = ([c for c, _, _ in self.every("abcd", part)] for part in (False, True))
        features, others = (self.rng.normal(size=(len(y), 5376)).astype(np.float32) for y in (train, test))
        self.root.mkdir(parents=True, exist_ok=True)
        own = {"noisy_label": np.array(train), "test_label": np.array(test)}
        save: Any = np.savez
        save(self.root / "amt.npz", features=features, test_features=others, **own)

    def makers(self) -> dict[str, Callable[[], None]]:
        """What can be made, by name."""
        names = (
            "imagenet",
            "clothing1m",
            "food101n",
            "webvision",
            "animal10n",
            "voc",
            "svhn",
            "cifar",
            "coco",
            "web",
            "amt",
        )
        return {name: getattr(self, name) for name in names}


def write_weights(path: Path, model: str) -> None:
    """Random weights of a ResNet, AlexNet or VGG-16 by torchvision's names, for as many classes as ImageNet has."""
    params, stats = build(model, (_SIDE, _SIDE, 3), 1000).init(jax.random.key(1))
    named, arrays = naming(model, {}), {}
    assert named is not None
    for place, leaf in jax.tree.leaves_with_path(params) + jax.tree.leaves_with_path(stats):
        order = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[leaf.ndim]
        arrays[named(tuple(part.key for part in place))] = np.ascontiguousarray(np.asarray(leaf).transpose(order))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(arrays, path)


def main() -> None:
    """Write all data sets into the first folder that is named, and weights into the second one."""
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    for name, make in Maker(Path(sys.argv[1])).makers().items():
        make()
        print(name)
    for folder in sys.argv[2:]:
        for model in ("resnet50", "alexnet"):
            write_weights(Path(folder) / f"{model}.safetensors", model)
            print(f"{model}.safetensors")


if __name__ == "__main__":
    main()
