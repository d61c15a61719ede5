"""What a run keeps is put to use: predictions, wrong labels among new ones, artifacts for elsewhere; and mistakes."""

import csv
import json

import jax
import numpy as np
import optax
import pytest
import safetensors.numpy
from PIL import Image

import nlx
from nlx.arguments import ArgumentError
from nlx.cleaning.evidence import weigh_each
from nlx.cleaning.label_files import read_labels
from nlx.cli import main
from nlx.data import Dataset, Split
from nlx.data.prepare import preparer
from nlx.experiment.saved import save_trained
from nlx.methods.plain import cross_entropy, plain
from nlx.models import build, prepared

NAMES = ("red", "green", "blue")
RNG = np.random.default_rng(0)
TRUE = RNG.integers(0, 3, 90)
IMAGES = (120 * np.eye(3)[TRUE][:, None, None] + RNG.integers(0, 120, (90, 6, 6, 3))).astype(np.uint8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder of a model of pictures that tells three colours apart, and what its trainer predicts."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    mean, scale = np.full(3, 90, np.float32), np.full(3, 50, np.float32)
    model = prepared(build("mlp", (6, 6, 3), 3, widths=()), preparer(mean, scale))
    trainer = nlx.Trainer(model, plain(cross_entropy), optax.sgd(0.1), batch_size=40)
    data = Dataset("colours", NAMES, Split(IMAGES, TRUE.astype(np.int32), None), None)
    with jax.numpy_dtype_promotion("standard"):
        state = trainer.fit(data.train, jax.random.key(0), 15).state
    save_trained(folder, trainer, state, data)
    return folder, trainer.predict(state, IMAGES)


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


def test_predictions_of_arrays_and_of_pictures_are_the_trainers(trained, call, tmp_path):
    folder, expected = trained
    np.save("x.npy", IMAGES)
    assert call("predict", folder, "x.npy", "--out=p.npy")[0] == 0
    np.testing.assert_allclose(np.load("p.npy"), expected, atol=1e-6)
    for row in range(4):
        path = tmp_path / "pictures" / NAMES[TRUE[row]] / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(IMAGES[row]).save(path)
    code, out, _ = call("predict", folder, "pictures")
    assert (code, out) == (0, "4 examples, 3 classes, by cross_entropy: predictions.csv\n")
    rows = list(csv.DictReader((tmp_path / "predictions.csv").read_text().splitlines()))
    for row in rows:
        colour, number = row["path"].removesuffix(".png").split("/")
        assert row["predicted"] == colour
        assert [float(row[name]) for name in NAMES] == pytest.approx(expected[int(number)], abs=1e-4)
    assert np.argmax(expected, axis=1).tolist() == TRUE.tolist()


def test_wrong_labels_are_found_among_new_ones(trained, call, tmp_path):
    folder, _ = trained
    np.save("x.npy", IMAGES)
    given = TRUE.copy()
    given[:9] = (given[:9] + 1) % 3
    (tmp_path / "y.txt").write_text("\n".join(NAMES[label] for label in given))
    code, out, err = call("score", folder, "x.npy", "y.txt")
    assert (code, err) == (0, "")
    assert "labels that would change: 9 of 90\nlabels that look wrong: 1" in out
    table = read_labels(tmp_path / "scored" / "labels.parquet")
    assert sorted(table.most_suspicious(9).tolist()) == list(range(9))
    np.testing.assert_array_equal(table.cleaned_label, TRUE)
    assert table.class_names == NAMES
    assert (tmp_path / "scored" / "report.html").read_text().count("<img") >= 48
    np.savez("both.npz", image=IMAGES, noisy_label=given)
    code, _, err = call("score", folder, "both.npz", "--out=again")
    assert (code, err) == (0, "")
    np.testing.assert_array_equal(read_labels(tmp_path / "again" / "labels.parquet").posterior, table.posterior)


def test_labels_to_score_are_read_as_people_have_them(trained, call, tmp_path):
    np.savez("x.npz", image=IMAGES, id=np.array([f"photo {row}" for row in range(90)]))
    rows = [f"photo {row};{NAMES[(TRUE[row] + (row < 9)) % 3]}" for row in reversed(range(90))]
    (tmp_path / "y.csv").write_text("ID;Label\n" + "\n".join(rows))
    code, _, err = call("score", trained[0], "x.npz", "y.csv")
    assert (code, err) == (0, "")
    issues = list(csv.DictReader((tmp_path / "scored" / "issues.csv").read_text().splitlines()))
    assert {issue["id"] for issue in issues[:9]} == {f"photo {row}" for row in range(9)}


def test_an_artifact_needs_nothing_but_jax(trained, call, tmp_path):
    folder, expected = trained
    code, out, _ = call("export", folder)
    assert code == 0
    assert "uint8 [B, 6, 6, 3] -> p [B, 3]" in out
    artifact = jax.export.deserialize(bytearray((tmp_path / "exported" / "model.jaxexport").read_bytes()))
    assert artifact.platforms == ("cpu", "cuda", "tpu")
    for count in (1, 7, 90):
        np.testing.assert_allclose(artifact.call(IMAGES[:count]), expected[:count], atol=1e-5)
    weights = safetensors.numpy.load_file(tmp_path / "exported" / "model.safetensors")
    assert weights["params/model/head/dense/kernel"].shape == (108, 3)
    about = json.loads((tmp_path / "exported" / "model.json").read_text())
    assert (about["classes"], about["input_shape"]) == (list(NAMES), [6, 6, 3])


def test_new_labels_of_several_classes_are_weighed_class_by_class(trained, monkeypatch):
    model = nlx.load_run(trained[0])
    model.multi_label = True
    given = np.eye(3, dtype=np.uint8)[TRUE]
    given[::7, 0] ^= 1
    probs = np.clip(np.eye(3)[TRUE] + 0.1, 0.1, 0.9).astype(np.float32)
    monkeypatch.setattr(model, "predict", lambda inputs: probs)
    table = model.score(IMAGES, given)
    np.testing.assert_array_equal(table.posterior, weigh_each(probs, given))
    assert not np.allclose(table.posterior, probs)
    assert (table.chosen, table.multi_label) == ("bayes", True)


def test_numbers_are_names_first(trained):
    model = nlx.load_run(trained[0])
    model.class_names = ("2", "0", "1")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        table = model.score(IMAGES, TRUE)
    assert table.noisy_label.tolist() == [(1, 2, 0)[label] for label in TRUE]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("predict", "nothing", "x.npy"), "nothing holds no model: give the folder of a finished run"),
        (("predict", "sparse", "x.npy"), "nlx clean keeps none of a sparse matrix"),
        (("predict", "several", "x.npy"), "give one of its seeds, such as several/seed-0"),
        (("predict", "broken", "x.npy"), "the model in broken cannot be read"),
        (("predict", "RUN", "flat.npy"), "trained on inputs uint8 [n, 6, 6, 3], got float32 [n, 4]"),
        (("predict", "RUN", "empty"), "empty holds no pictures"),
        (("predict", "RUN", "x.npy", "--out=x.npy"), "choose another file by --out"),
        (("score", "RUN", "x.npy", "names.txt"), "'bright' is no class of the run"),
        (("score", "RUN", "x.npy", "short.npy"), "short.npy: 2 labels for the 90 examples of x.npy: give one each"),
        (
            ("score", "RUN", "empty", "short.npy"),
            "labels of the pictures in empty stand in its labels.csv: leave short.npy out",
        ),
        (("export", "RUN", "--out=empty"), "empty exists: choose another folder by --out"),
    ],
)
def test_a_mistake_is_one_sentence(trained, call, tmp_path, arguments, message):
    np.save("x.npy", IMAGES)
    np.save("flat.npy", np.ones((3, 4)))
    np.save("short.npy", np.array([0, 1]))
    (tmp_path / "names.txt").write_text("\n".join(["bright"] * 90))
    (tmp_path / "empty").mkdir()
    (tmp_path / "sparse").mkdir()
    (tmp_path / "sparse" / "labels.parquet").touch()  # of nlx clean, which keeps no config.json
    (tmp_path / "several" / "seed-0").mkdir(parents=True)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model.json").write_text("{}")
    code, _, err = call(*(trained[0] if argument == "RUN" else argument for argument in arguments))
    assert code == 1
    assert err.startswith("error: ")
    assert message in err
    assert len(err.splitlines()) == 1


def test_pictures_are_refused_where_a_run_had_none(trained):
    model = nlx.load_run(trained[0])
    model.input_shape = (4,)
    with pytest.raises(ArgumentError, match=r"inputs of shape \[4\], no pictures"):
        model.files(["a.png"])
