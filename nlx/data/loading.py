"""One door to every data source: a name and options in, a data set out."""

from __future__ import annotations

import difflib
from pathlib import Path

from nlx.data.arrays import npz
from nlx.data.cifar10n import cifar10n
from nlx.data.dataset import DataError, Dataset
from nlx.data.digits import DEFAULT_NOISE, digits
from nlx.data.folder import folder
from nlx.data.scenes import web_sample

KNOWN = ("digits", "web", "cifar10n", "npz:PATH", "folder:PATH")
CHOICES: dict[str, tuple[str, ...]] = {  # which of the options that change the labels a data set can use
    "digits": ("noise",),
    "web": (),
    "cifar10n": ("labels",),
    "npz": ("labels",),
    "folder": (),
}


def load(
    dataset: str,
    *,
    labels: str | None = None,
    data_dir: str | Path | None = None,
    noise: str | None = None,
    image_size: int = 224,
    noise_seed: int = 0,
    in_memory_gib: float = 2.0,
) -> Dataset:
    """Load a data set by name.

    - ``digits``: 1,797 real handwritten digits with synthetic noise (``noise``, ``noise_seed``);
    - ``web``: the WEB set where it lies under ``<data_dir>/web/``, else the embedded sample;
    - ``cifar10n``: CIFAR-10N from its official files under ``data_dir`` (``labels``);
    - ``npz:PATH``: your own arrays (``labels``);
    - ``folder:PATH``: your own pictures with a ``labels.csv``.

    Args:
      dataset: one of the names above.
      labels: which labelling to learn from, where there are several.
      data_dir: folder of the data sets that are not embedded; the others have no use for it.
      noise: synthetic noise, ``none``, ``uniform:RATE`` or ``shuffle:RATE``; digits default to ``shuffle:0.4``.
      image_size: height and width that pictures read from files are decoded to.
      noise_seed: seed of the synthetic noise.
      in_memory_gib: pictures that would fill more than this stay on disk, as ``ImageFiles``.

    Returns:
      The data set; ``web`` is called ``web/sample`` where the embedded sample stands in.

    Raises:
      DataError: a name that is unknown, an option that does not apply, or anything wrong with the data.
    """
    kind, colon, path = dataset.partition(":")
    _check_name(dataset, kind, bool(colon), path)
    given = {"labels": labels, "noise": noise}
    for option, value in given.items():
        if value is not None and option not in CHOICES[kind]:
            users = [name for name, choices in CHOICES.items() if option in choices]
            raise DataError(f"{dataset} takes no {option}: leave it out; only {' and '.join(users)} can use one.")

    if kind == "digits":
        return digits(DEFAULT_NOISE if noise is None else noise, noise_seed)
    if kind == "npz":
        return npz(path, labels)
    if kind == "folder":
        return folder(path, image_size, in_memory_gib=in_memory_gib)
    if kind == "cifar10n":
        return cifar10n(data_dir, labels)
    if data_dir is not None and (Path(data_dir).expanduser() / "web" / "labels.csv").exists():
        real = Path(data_dir).expanduser() / "web"
        return folder(real, image_size, in_memory_gib=in_memory_gib, name="web", multi_label=True)
    return web_sample()


def _check_name(dataset: str, kind: str, colon: bool, path: str) -> None:
    needs_path = f"{kind}:PATH" in KNOWN
    if kind not in CHOICES or (colon and not needs_path):
        close = difflib.get_close_matches(kind, CHOICES, n=1)
        hint = f" Did you mean {next(k for k in KNOWN if k.startswith(close[0]))}?" if close else ""
        raise DataError(f"unknown dataset {dataset!r}: choose one of {', '.join(KNOWN)}.{hint}")
    if needs_path and not path:
        raise DataError(f"dataset {dataset!r} needs a path: write {kind}:PATH.")
