"""Files with flipped, cut and repeated bytes: a right result or one sentence, and nothing else."""

import gzip
import io

import numpy as np
import pytest
from PIL import Image

from nlx.arguments import ArgumentError
from nlx.cleaning.label_files import read_labels, write_labels
from nlx.cleaning.table import label_table
from nlx.data import DataError
from nlx.data.decode import broken_files, decode, survey
from nlx.data.examples import Names, read_examples
from nlx.data.sources.idx import read_idx
from nlx.data.sources.image_folder import folder
from nlx.data.sources.npz import npz
from nlx.data.tables import read_table

TRIES = 60


def written(save):
    stream = io.BytesIO()
    save(stream)
    return stream.getvalue()


def mutated(content, rng):
    """Some bytes changed, or a piece cut out, doubled or overwritten by extremes."""
    data = bytearray(content)
    at, length = int(rng.integers(len(data))), int(rng.integers(1, 9))
    match rng.integers(5):
        case 0:
            data[at] ^= 1 << int(rng.integers(8))
        case 1:
            del data[at:]
        case 2:
            del data[at : at + length]
        case 3:
            data[at:at] = data[at : at + length]
        case _:
            data[at : at + length] = bytes([int(rng.choice([0, 255, 44, 34]))]) * length
    return bytes(data)


RNG = np.random.default_rng(0)
PIXELS = Image.fromarray(RNG.integers(0, 256, (9, 7, 3), dtype=np.uint8))
ARRAYS = {"features": RNG.normal(size=(6, 3)), "noisy_label": np.arange(6) % 3, "label": np.arange(6) % 3}
TABLE = 'path,noisy,label,split\na.png,1,1.0,\nb.png,2,,\nc.png,"1",2,test\n'
IDX = bytes((0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 2)) + bytes(12)
LABELS = label_table(np.full((6, 3), 1 / 3), np.arange(6) % 3)
KINDS = {
    "x.npz": written(lambda s: np.savez(s, **ARRAYS)),
    "y.npz": written(lambda s: np.savez_compressed(s, **ARRAYS)),
    "x.npy": written(lambda s: np.save(s, ARRAYS["features"])),
    "x.txt": "ant\nbée\n".encode(),
    "labels.csv": TABLE.encode(),
    "x.idx": IDX,
    "x.gz": gzip.compress(IDX, mtime=0),
    **{f"x.{k}": written(lambda s, k=k: PIXELS.save(s, k)) for k in ("png", "jpeg", "gif", "tiff", "webp")},
}


def read(path):
    if path.suffix == ".parquet":
        assert len(read_table(path)) == len(read_table(path).columns["row"])
        assert read_labels(path).posterior.ndim == 2
        return
    if path.suffix in (".npy", ".txt"):
        assert path.suffix == ".npy" or len(read_table(path).columns) == 1
        assert path.suffix == ".txt" or isinstance(read_examples(path, path, Names()).labels, np.ndarray)
        return
    if path.suffix == ".npz":
        data = npz(path)
    elif path.suffix == ".csv":
        data = folder(path.parent, 4)
    elif path.suffix in (".idx", ".gz"):
        assert read_idx(path, 3).ndim == 3
        return
    else:
        broken, _ = survey([str(path)])
        if broken:
            raise DataError(broken_files(broken))
        assert decode(str(path), 4).shape == (4, 4, 3)
        return
    assert len(data.train.inputs) == len(data.train.observed)
    assert 0 <= data.train.observed.min() <= data.train.observed.max() < data.num_classes


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*KINDS, "x.parquet"])
def test_a_damaged_file_is_read_rightly_or_told(tmp_path, name):
    for picture in "abc":
        PIXELS.save(tmp_path / f"{picture}.png")
    path, rng = tmp_path / name, np.random.default_rng(1)
    content = KINDS.get(name)
    if content is None:
        write_labels(path, LABELS)
        content = path.read_bytes()
    path.write_bytes(content)
    read(path)
    sentences = []
    for _ in range(TRIES):
        path.write_bytes(mutated(content, rng))
        try:
            read(path)
        except (DataError, ArgumentError) as error:
            sentences.append(str(error))
    assert sentences
    assert all("\n" not in sentence for sentence in sentences)
