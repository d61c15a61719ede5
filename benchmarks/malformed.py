"""Inputs with something wrong in them: each must be refused in one sentence, or be read as what was meant."""

from __future__ import annotations

import contextlib
import io
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nlx.data import DataError, Dataset, load
from nlx.experiment.main import main as recipe_main
from recipes import baseline

HANG = 20  # seconds
PICTURES = 24


def inputs(place: Path, arrays: dict[str, np.ndarray], count: int, rng: random.Random) -> Iterator[tuple[str, str]]:
    """Arrays, tables and pictures with one thing wrong, files with a few wrong bytes, options that make no sense.

    Yields:
      Kind of input, and what became of it; all in this process.
    """
    folder = place / "malformed"
    folder.mkdir()
    np.savez(folder / "intact.npz", allow_pickle=False, **arrays)
    intact = meaning(load(f"npz:{folder}/intact.npz"))
    pictures = written(folder / "intact", str, None)
    labelled = meaning(load(f"folder:{pictures}"))
    for i in range(count):
        path, kind = folder / f"{i}.npz", rng.choice(("value", "bytes", "option", "table", "picture"))
        if kind in ("table", "picture"):
            name, spoil, allowed = rng.choice(TABLES if kind == "table" else SPOILT_PICTURES)
            spoilt: Any = (spoil, None) if kind == "table" else (str, spoil)
            source = f"folder:{written(folder / str(i), *spoilt)}"
            expected = labelled
        elif kind == "option":
            shutil.copy(folder / "intact.npz", path)
            option, value = rng.choice(WRONG_OPTIONS)
            yield f"inputs: {kind}", judged(partial(as_option, path, f"--{option}={value}"), lambda code: code == 1)
            continue
        else:
            name, allowed, source, expected = kind, "either", f"npz:{path}", intact
            if kind == "bytes":
                content = bytearray((folder / "intact.npz").read_bytes())
                for _ in range(rng.choice((1, 3, 40))):
                    content[rng.randrange(len(content))] = rng.randrange(256)
                path.write_bytes(content[: rng.choice((len(content), rng.randrange(len(content))))])
            else:
                name, change = rng.choice(SPOILS)
                np.savez(path, allow_pickle=False, **{**arrays, name: change(arrays[name])})
        what = partial(load, source)
        yield f"inputs: {kind}", judged(what, partial(as_meant, expected), f" ({name})", allowed)


def meaning(data: Dataset) -> tuple[bytes, list[str]]:
    """What a training set says, by whatever spelling: its inputs, and the names of its classes row by row."""
    rows = data.train.inputs
    return np.asarray(rows).tobytes(), [data.class_names[c] for c in data.train.observed]


def as_meant(expected: tuple[bytes, list[str]], data: Dataset) -> bool:
    """Whether a data set says what the intact one does."""
    return meaning(data) == expected


def written(folder: Path, table: Callable[[str], str | bytes], picture: Callable[[Path], None] | None) -> Path:
    """A folder of pictures and their labels, one of the two spoilt."""
    (folder / "img").mkdir(parents=True)
    rows, rng = ["path,noisy"], np.random.default_rng(0)
    for i in range(PICTURES):
        file = folder / "img" / f"{i:02d}.png"
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(file)
        rows.append(f"img/{i:02d}.png,{('ant', 'bee', 'cat')[i % 3]}")
    if picture is not None:
        picture(folder / "img" / "07.png")
    text = table("\n".join(rows) + "\n")
    (folder / "labels.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def resaved(change: Callable[[Image.Image], Image.Image], form: str = "png", **options: Any) -> Callable[[Path], None]:
    """A picture that a program has saved in another way under the same name."""

    def spoil(path: Path) -> None:
        with Image.open(path) as image:
            changed = change(image.copy())
        changed.save(path, form, **options)

    return spoil


def instead(content: bytes) -> Callable[[Path], None]:
    """Other bytes in the place of a picture."""

    def spoil(path: Path) -> None:
        path.write_bytes(content)

    return spoil


def linked(target: str) -> Callable[[Path], None]:
    """A link in the place of a picture."""

    def spoil(path: Path) -> None:
        path.unlink()
        path.symlink_to(target)

    return spoil


def folder_instead(path: Path) -> None:
    """A folder by the name of a picture."""
    path.unlink()
    path.mkdir()


def cut_short(path: Path) -> None:
    """The first part of a picture."""
    path.write_bytes(path.read_bytes()[:200])


# Name, what is done, and what may follow: the data as they were meant ("same"), a sentence ("told"), or one of the two.
TABLES: list[tuple[str, Callable[[str], str | bytes], str]] = [
    ("byte order mark", lambda t: "\ufeff" + t, "same"),
    ("UTF-16", lambda t: t.encode("utf-16"), "either"),
    ("Windows lines", lambda t: t.replace("\n", "\r\n"), "same"),
    ("old Mac's lines", lambda t: t.replace("\n", "\r"), "either"),
    ("semicolons", lambda t: t.replace(",", ";"), "same"),
    ("tabs", lambda t: t.replace(",", "\t"), "same"),
    ("bars", lambda t: t.replace(",", "|"), "same"),
    ("capitals in the header", lambda t: t.replace("path,noisy", "Path,NOISY"), "same"),
    ("spaces in the header", lambda t: t.replace("path,noisy", " path , noisy "), "same"),
    ("spaces around classes", lambda t: t.replace(",bee", ",  bee "), "same"),
    ("zero-width marks", lambda t: t.replace(",bee", ",\u200bbee"), "same"),
    ("quotes", lambda t: t.replace("ant", '"ant"'), "same"),
    ("empty lines", lambda t: t.replace("\n", "\n\n"), "same"),
    ("no line at the end", lambda t: t.rstrip("\n"), "same"),
    ("./ before paths", lambda t: t.replace("img/", "./img/"), "same"),
    ("backslashes", lambda t: t.replace("img/", "img\\"), "same"),
    ("another column", lambda t: "\n".join(f"{line},x" for line in t.splitlines()), "same"),
    ("columns swapped", lambda t: "\n".join(",".join(line.split(",")[::-1]) for line in t.splitlines()), "same"),
    ("a row twice", lambda t: t + t.splitlines()[3] + "\n", "told"),
    ("a row twice, labels differ", lambda t: t + "img/02.png,ant\n", "told"),
    ("a picture that is not there", lambda t: t + "img/99.png,ant\n", "told"),
    ("a picture outside", lambda t: t + "../../arrays.npz,ant\n", "told"),
    ("an absolute path", lambda t: t + "/etc/hostname,ant\n", "told"),
    ("no header", lambda t: t.partition("\n")[2], "told"),
    ("header alone", lambda t: t.partition("\n")[0], "told"),
    ("empty", lambda t: "", "told"),
    ("NUL", lambda t: t.replace("bee", "b\0e"), "told"),
    ("no UTF-8", lambda t: t.replace("bee", "b\xe9").encode("latin-1"), "told"),
    ("a row too long", lambda t: t + "img/00.png,ant,bee,cat,dog\n", "told"),
    ("a quote without end", lambda t: t.replace(",cat", ',"cat', 1), "told"),
    (
        "an unknown split",
        lambda t: "\n".join(f"{x},{y}" for x, y in zip(t.splitlines(), ["split", *"t" * PICTURES], strict=True)),
        "told",
    ),
    ("misspelt header", lambda t: t.replace("path,noisy", "path,nosiy"), "told"),
    ("a cell of a megabyte", lambda t: t.replace("bee", "b" * 2**20, 1), "told"),
]
SPOILT_PICTURES: list[tuple[str, Callable[[Path], None], str]] = [
    ("cut short", cut_short, "told"),
    ("empty", instead(b""), "told"),
    ("text", instead(b"not found"), "told"),
    ("zeros", instead(bytes(500)), "told"),
    ("a folder", folder_instead, "told"),
    ("a link to nothing", linked("nowhere.png"), "told"),
    ("a link outside", linked("/etc/hostname"), "told"),
    ("opaque alpha", resaved(lambda image: image.convert("RGBA")), "same"),
    ("BMP by the name of PNG", resaved(lambda image: image, "bmp"), "same"),
    ("TIFF by the name of PNG", resaved(lambda image: image, "tiff"), "same"),
    ("lossless WebP", resaved(lambda image: image, "webp", lossless=True), "same"),
]
SPOILS: list[tuple[str, Callable[[np.ndarray], np.ndarray]]] = [
    ("features", lambda x: np.where(np.arange(len(x))[:, None] == 7, np.nan, x)),
    ("features", lambda x: np.where(np.arange(len(x))[:, None] == 7, np.inf, x)),
    ("features", lambda x: x[:-1]),
    ("features", lambda x: x[:, :, None]),
    ("features", lambda x: x.astype(str)),
    ("features", lambda x: x[:0]),
    ("features", lambda x: x.astype(np.complex64)),
    ("features", lambda x: x.astype(np.float64)),  # as right as before
    ("noisy_label", lambda y: y - 1),
    ("noisy_label", lambda y: y[:-3]),
    ("noisy_label", lambda y: np.where(np.arange(len(y)) == 5, np.nan, y)),
    ("noisy_label", lambda y: y.astype(str)),
    ("noisy_label", lambda y: y.reshape(-1, 2)),
    ("noisy_label", lambda y: y.astype(np.uint8)),  # as right as before
    ("noisy_label", lambda y: y.astype(np.int64)),  # likewise
    ("noisy_label", lambda y: y + 0.5),
    ("label", lambda y: y[:-1]),
    ("label", lambda y: y - 2),
]
WRONG_OPTIONS = [
    (name, value)
    for names, values in (
        (("epochs", "batch_size", "seeds", "evaluate_every"), ("0", "-1", "-99999")),
        (("learning_rate", "method_rate", "decay_every"), ("0", "-1", "nan", "inf")),
        (("momentum", "dropout", "validation_fraction"), ("1", "-0.1", "nan", "2")),
        (("weight_decay", "checkpoint_seconds", "in_memory_gib", "seed"), ("-1",)),
        (("model", "labels"), ("none such", "../..", "\u202ekcab")),
        (("noise",), ("symmetric", "symmetric:", "symmetric:2", "symmetric:nan", ":0.4", "\u202e:0.4")),
        (("transition",), ("guess", "anchors:", "confident:/dev/null", "/dev/null")),
        (("clean_fraction", "known_outliers", "beta", "q", "alpha"), ("0.25",)),
    )
    for name in names
    for value in values
]


def as_option(path: Path, option: str) -> int:
    """The exit code of a recipe with an option, which must say one sentence."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        arguments = [f"--dataset=npz:{path}", f"--run_dir={path.with_suffix('')}", option]
        code = recipe_main(baseline.BaselineOptions, baseline.train, arguments)
    if not (said.getvalue().startswith("error: ") and said.getvalue().count("\n") == 1):
        raise RuntimeError(f"{option} is told as {said.getvalue()!r}")
    return code


def judged(call: Callable[[], Any], right: Callable[[Any], bool], what: str = "", allowed: str = "either") -> str:
    """What became of a malformed input, of which ``same`` or ``told`` or either is allowed."""

    def give_up(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(HANG)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            result = call()
        return "one sentence, or right" if allowed != "told" and right(result) else f"FAILED: wrong in silence{what}"
    except DataError as error:
        if allowed == "same":
            return f"FAILED: refused{what}: {str(error)[:80]}"
        return "one sentence, or right" if "\n" not in str(error) else f"FAILED: several lines{what}"
    except TimeoutError:
        return f"FAILED: hangs{what}"
    except Exception as error:  # what a user would see as a traceback
        return f"FAILED: {type(error).__name__}{what}: {str(error)[:80]}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
