"""Pictures in large files: Parquet of Hugging Face's form, ArrayRecord, and what TensorFlow Datasets prepares."""

import io
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from nlx.data import DataError, ImageFiles, load
from nlx.data.batches import gather
from nlx.experiment.run_folder import fingerprint

SHADES = np.arange(0, 250, 10)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NLX_CACHE", str(tmp_path / "cache"))


def png(shade):
    buffer = io.BytesIO()
    Image.new("RGB", (6, 6), (int(shade),) * 3).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(path, shades, names=("ant", "bee", "cat"), **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = [{"bytes": png(shade), "path": None} for shade in shades]
    about = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    table = pa.table({"image": pictures, "label": [int(s) // 10 % 3 for s in shades], **columns})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(about)}), path, row_group_size=4)


def write_records(path, shades, **features):
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for row, shade in enumerate(shades):
        example = tf_example_pb2.Example()
        example.features.feature["image"].bytes_list.value.append(png(shade))
        for name, values in {"label": [int(s) // 10 % 3 for s in shades], **features}.items():
            example.features.feature[name].int64_list.value.append(values[row])
        writer.write(example.SerializeToString())
    writer.close()


@pytest.mark.parametrize("kind", ["hf", "array_record", "tfds"])
def test_any_row_is_read_by_itself(tmp_path, kind):
    if kind == "hf":
        for number, part in enumerate((SHADES[:10], SHADES[10:20])):
            write_parquet(tmp_path / "set" / "data" / f"train-{number:05d}-of-00002.parquet", part)
        write_parquet(tmp_path / "set" / "data" / "test-00000-of-00001.parquet", SHADES[20:])
        name = f"hf:{tmp_path / 'set'}"
    else:
        folder = tmp_path / "set" / "1.0.0"
        for number, part in enumerate((SHADES[:10], SHADES[10:20])):
            write_records(folder / f"set-train.array_record-{number:05d}-of-00002", part)
        write_records(folder / "set-validation.array_record-00000-of-00001", SHADES[20:])
        (folder / "label.labels.txt").write_text("ant\nbee\ncat\n")
        name = "tfds:set" if kind == "tfds" else f"array_record:{folder}/*.array_record*"
    data = load(name, data_dir=tmp_path, image_size=4, in_memory_gib=0)
    assert data.name == "set"
    assert data.class_names == (("0", "1", "2") if kind == "array_record" else ("ant", "bee", "cat"))
    assert isinstance(data.train.inputs, ImageFiles)
    assert data.train.noisy_label.tolist() == [n % 3 for n in range(20)]
    assert data.train.label is None
    rows = np.array([19, 0, 7, 10])
    assert gather(data.train, rows)["inputs"][:, 0, 0, 0].tolist() == SHADES[rows].tolist()
    assert data.test.label.tolist() == [n % 3 for n in range(20, 25)]
    again = load(name, data_dir=tmp_path, image_size=4, noise="pair:1")  # from the cache, decoded at once
    assert again.train.inputs[:, 1, 1, 2].tolist() == SHADES[:20].tolist()
    assert again.train.noisy_label.tolist() == [(n + 1) % 3 for n in range(20)]
    swapped = replace(data, train=data.train.take(np.arange(20)[::-1]))
    assert fingerprint(data)["inputs_digest"] != fingerprint(swapped)["inputs_digest"]


def test_noisy_labels_beside_true_ones(tmp_path):
    noisy = [0, 0, 1, 1]
    write_parquet(tmp_path / "set.parquet", SHADES[:4], noisy_label=noisy)
    write_records(tmp_path / "set.array_record", SHADES[:4], noisy_label=noisy)
    for name in (f"hf:{tmp_path / 'set.parquet'}", f"array_record:{tmp_path / 'set.array_record'}"):
        train = load(name).train
        assert train.noisy_label.tolist() == noisy
        assert train.label.tolist() == [0, 1, 2, 0]


def test_what_cannot_be_read_is_named(tmp_path):
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    (tmp_path / "broken.array_record").write_bytes(b"nothing")
    write_parquet(tmp_path / "test.parquet", SHADES[:2])
    write_parquet(tmp_path / "few.parquet", SHADES[:3], names=("ant", "bee"))
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "text.parquet")
    for name, match in (
        ("hf:{}/broken.parquet", "broken.parquet: no Parquet file, or a broken one"),
        ("hf:{}/text.parquet", "has the columns text: there must be a picture, image, and a label"),
        ("hf:{}/none", "none: holds no .parquet file"),
        ("hf:{}/test.parquet", "is there no file to train on"),
        ("hf:{}/few.parquet", "labels row 2 is 2, out of range: the file gives 2 classes"),
        ("array_record:{}/none*", "there is no such file: write a pattern"),
        ("array_record:{}/broken.array_record", "cannot be read as tf.train.Example records"),
        ("tfds:none", "holds no .array_record files: prepare them by `tfds build none"),
        ("array_record", "needs a path: write array_record:GLOB"),
    ):
        with pytest.raises(DataError, match=match):
            load(name.format(tmp_path), data_dir=tmp_path)
