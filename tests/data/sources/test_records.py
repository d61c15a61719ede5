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
    table = pa.table({"image": pictures, **{"label": [int(s) // 10 % 3 for s in shades], **columns}})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(about)}), path, row_group_size=4)


def write_records(path, shades, **features):
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for row, shade in enumerate(shades):
        example = tf_example_pb2.Example()
        example.features.feature["image"].bytes_list.value.append(png(shade))
        for name, values in {"label": [int(s) // 10 % 3 for s in shades], **features}.items():
            if values[row] is not None:
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


@pytest.mark.parametrize("unknown", [-1, None])
@pytest.mark.parametrize("kind", ["hf", "array_record"])
def test_true_labels_may_be_unknown_beside_noisy_ones(tmp_path, kind, unknown):
    columns = {"label": [unknown, 1, unknown, 0], "noisy_label": [0, 0, 1, 1]}
    path = tmp_path / ("set.parquet" if kind == "hf" else "set.array_record")
    (write_parquet if kind == "hf" else write_records)(path, SHADES[:4], **columns)
    train = load(f"{kind}:{path}").train
    assert train.noisy_label.tolist() == [0, 0, 1, 1]
    assert train.label.tolist() == [-1, 1, -1, 0]
    assert train.trusted.tolist() == [False, True, False, True]
    path.rename(path.with_stem("set-test"))
    (write_parquet if kind == "hf" else write_records)(path, SHADES[:4], **columns)
    with pytest.raises(DataError, match=r"set-test\.\w+: labels row 0 is unknown: remove it, for it is to be tested"):
        load(f"{kind}:{tmp_path}" + "/*record" * (kind != "hf"))


def test_true_labels_of_pandas_are_floats_where_some_are_unknown(tmp_path):
    write_parquet(tmp_path / "set.parquet", SHADES[:3], label=[np.nan, 1.0, 2.0], noisy_label=[0, 0, 1])
    assert load(f"hf:{tmp_path / 'set.parquet'}").train.label.tolist() == [-1, 1, 2]


def test_a_noisy_label_is_in_all_records_or_in_none(tmp_path):
    write_records(tmp_path / "a.array_record", SHADES[:3], noisy_label=[0, None, 1])
    with pytest.raises(DataError, match=r"a.array_record: 'noisy_label' row 1 is -1, no class number"):
        load(f"array_record:{tmp_path}/a*")
    write_parquet(tmp_path / "some" / "train-0.parquet", SHADES[:3], noisy_label=[0, 0, 1])
    write_parquet(tmp_path / "some" / "train-1.parquet", SHADES[:3])
    with pytest.raises(DataError, match=r"train-1.parquet: has no noisy_label, which other files have: write it in a"):
        load(f"hf:{tmp_path}/some")


@pytest.mark.parametrize("in_memory", [2, 0])
def test_a_broken_picture_has_the_name_of_its_file_and_row(tmp_path, monkeypatch, in_memory):
    monkeypatch.setitem(globals(), "png", lambda shade, png=png: b"nothing" if shade == 20 else png(shade))
    write_parquet(tmp_path / "set.parquet", SHADES[:6])
    write_records(tmp_path / "set.array_record", SHADES[:6])
    for name in ("hf:{}/set.parquet", "array_record:{}/set.array_record"):
        file = name.format(tmp_path).partition(":")[2]
        told = rf"^{file} row 2: not a readable picture \(cannot identify image file\): replace it, or remove its row"
        with pytest.raises(DataError, match=told):
            gather(load(name.format(tmp_path), in_memory_gib=in_memory).train, np.arange(6))


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
        ("hf:{}/few.parquet", "few.parquet: labels row 2 is 2, out of range: the file gives 2 classes"),
        ("array_record:{}/none*", "there is no such file: write a pattern"),
        ("array_record:{}/broken.array_record", "cannot be read as tf.train.Example records"),
        ("tfds:none", "holds no .array_record files: prepare them by `tfds build none"),
        ("array_record", "needs a path: write array_record:GLOB"),
    ):
        with pytest.raises(DataError, match=match):
            load(name.format(tmp_path), data_dir=tmp_path)
