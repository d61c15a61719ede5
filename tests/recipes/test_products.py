"""What each recipe leaves for its user: pictures, columns of the cleaned labels, scores and facts."""

import csv
import html
import json
import re
from types import SimpleNamespace

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest

import nlx
from benchmarks.miniatures import Maker
from nlx.cleaning.label_files import read_labels
from nlx.data import Dataset, Split
from nlx.data.answers import Answers
from nlx.experiment.main import run_recipe
from nlx.methods.distill import distill
from nlx.training.evaluation import against
from recipes import crf, crowd, linear

MINE = ("--dataset=npz:{arrays}", "--labels=web", "--batch_size=32", "--epochs=2")
NETWORK = ("--widths", "16")


class Products:
    """What lies in a run folder."""

    def __init__(self, folder, test):
        self.folder, self.test = folder, test
        self.rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        self.summary = json.loads((folder / "summary.json").read_text())
        self.config = json.loads((folder / "config.json").read_text())
        self.table = read_labels(folder / "labels.parquet")
        self.page = (folder / "report.html").read_text()
        self.pictures = {path.name for path in folder.glob("*.png")} - {"curves.png"}

    def check(self, method, pictures, columns, scores):
        """Everything that is promised is there, and what is there can be used."""
        assert self.summary["method"] == self.table.method == self.config["method"] == method
        assert self.pictures == pictures
        for name in pictures:
            assert (self.folder / name).read_bytes().startswith(b"\x89PNG")
        assert self.page.count("data:image/png;base64") >= 1 + len(pictures)
        lines = (self.folder / "issues.csv").read_text().splitlines()
        assert sum(line.endswith(",train") for line in lines) == len(self.table)
        assert sum(line.endswith(",test") for line in lines) == len(lines) - 1 - len(self.table)
        assert "posterior: probability of each class" in (self.folder / "README.txt").read_text()
        assert columns <= self.table.extras.keys()
        for name in columns:
            assert np.isfinite(np.asarray(self.table.extras[name], np.float64)).all(), name
        assert scores | {"train_loss", "recovery"} <= self.rows[-1].keys()
        assert all(np.isfinite(self.rows[-1][name]) for name in scores)
        self.check_predictions()

    def check_predictions(self):
        """What is stored predicts, without the data, what the run scored its test set by."""
        model = nlx.load_run(self.folder)
        with jax.numpy_dtype_promotion("standard"):
            found = against(model.scores(self.test.inputs), self.test.label)
        assert {name: self.rows[-1][f"test_{name}"] for name in found} == pytest.approx(found, abs=1e-6)


@pytest.fixture
def run(arrays, as_a_user, tmp_path):
    """Function that runs a recipe for two epochs and returns its products."""

    def call(recipe, *options, folder="run"):
        network = () if recipe == "linear" else NETWORK
        options = [option.format(arrays=arrays) for option in (*MINE, *network, *options)]
        code, out, err = as_a_user(recipe, *options, f"--run_dir={tmp_path / folder}")
        assert code == 0, err
        assert out == ""
        with np.load(arrays) as held:
            test = Split(held["test_features"], None, held["test_label"].astype(np.int32))
        return Products(tmp_path / folder, test)

    return call


@pytest.mark.slow
def test_the_forward_correction_takes_its_matrix_from_a_plain_run(run):
    plain = run("baseline", folder="plain")
    plain.check("plain", set(), {"outlier_score"}, {"test_accuracy", "issue_auc"})
    products = run("baseline", "--loss=forward", f"--transition=confident:{plain.folder}/labels.parquet")
    products.check("forward", {"transition.png"}, {"classifier"}, {"recovery_bayes", "transition_mae"})
    assert products.rows[-1]["transition_mae"] < 0.3


def test_the_noise_layer_leaves_its_matrix(run):
    learned = run("noise_layer", "--learn_from=0")
    learned.check("noise_layer", {"transition.png"}, {"classifier"}, {"mean_diagonal", "transition_mae", "explained"})
    assert learned.rows[1]["mean_diagonal"] < learned.rows[0]["mean_diagonal"] < 1


@pytest.mark.slow
def test_the_noise_layer_takes_a_matrix(run):
    given = run("noise_layer", "--layer=given", "--transition=trusted", "--clean_fraction=0.2", folder="given")
    given.check("forward", {"transition.png"}, {"classifier"}, {"transition_mae"})
    assert 0 < given.rows[0]["transition_mae"] == given.rows[1]["transition_mae"] < 0.2


@pytest.mark.slow
def test_the_outlier_layer_ranks_outliers(run):
    options = ("--labels=None", "--noise=outlier:0.4", "--layer=outliers", "--known_outliers=0.3")
    products = run("noise_layer", *options)
    products.check("outlier_layer", {"outliers.png"}, {"outlier_score"}, {"outlier_ap", "outliers"})


def test_methods_of_the_literature_run(run):
    run("elr").check("elr", set(), set(), {"test_accuracy", "recovery"})
    run("sop", "--average=0.9", folder="sop").check("sop", set(), {"unexplained"}, {"unexplained", "recovery"})
    joint = run("joint_optimization", folder="joint_optimization")
    joint.check("joint_optimization", set(), set(), {"prior_divergence", "entropy", "recovery"})
    judged = run("clean_net", "--clean_fraction=0.2", "--epochs=3", folder="clean_net")
    judged.check("clean_net", set(), {"relevance"}, {"relevance", "recovery"})
    assert [row["relevance"] == 1 for row in judged.rows] == [True, False, False]


def test_classes_that_the_classifier_does_not_predict_are_warned_of(arrays, as_a_user, tmp_path, monkeypatch):
    monkeypatch.setattr("nlx.experiment.export.unpredicted", lambda judged, posterior: [1, 2])
    options = (f"--dataset=npz:{arrays}", "--epochs=1", f"--run_dir={tmp_path / 'run'}")
    code, _, err = as_a_user("baseline", *options)
    assert (code, "warning: the classifier hardly ever predicts bee, cat; take another loss" in err) == (0, True)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["guard"]["classes_unpredicted"] == ["bee", "cat"]


NONE_WRONG = "warning: no trusted label is wrong; CleanNet takes the right ones as wrong labels for the other"


@pytest.fixture
def verified(tmp_path):
    """Options for pictures some of whose labels were verified as right or wrong."""
    Maker(tmp_path, side=8, classes=3).food101n()
    return "--dataset=food101n", "--labels=verified", f"--data_dir={tmp_path}", "--image_size=8", "--model=mlp"


@pytest.mark.slow
def test_labels_that_were_verified_are_taken(as_a_user, tmp_path, verified):
    options = verified
    folder = tmp_path / "run"
    code, _, err = as_a_user("clean_net", *options, "--batch_size=4", "--epochs=3", f"--run_dir={folder}")
    assert code == 0, err
    assert NONE_WRONG not in err
    table = read_labels(folder / "labels.parquet")
    wrong = np.asarray(table.extras["known_wrong"])
    assert wrong.any()
    assert (table.cleaned_label != table.noisy_label)[wrong].all()


@pytest.mark.slow
def test_labels_that_were_verified_as_wrong_are_asked_for_or_refused(as_a_user, tmp_path, verified):
    options = verified
    code, _, err = as_a_user("noise_types", *options, "--strategy=finetune", "--plan=cpu:1")  # which counts no noise
    assert code == 0, err
    code, _, err = as_a_user("noise_types", *options, "--plan=cpu:1")
    assert code != 0
    assert "noise cannot be counted on labels that were verified as right or wrong" in err
    file = tmp_path / "food101n/Food-101N_release/meta/verified_train.tsv"
    file.write_text("".join(line for line in file.read_text().splitlines(True) if not line.endswith("\t0\n")))
    code, _, err = as_a_user("clean_net", *options, "--plan=cpu:1")
    assert code == 0, err
    assert NONE_WRONG in err


@pytest.mark.slow
def test_no_belief_is_in_a_label_that_was_verified_as_wrong(as_a_user, tmp_path, verified, monkeypatch):
    taught = []
    monkeypatch.setattr(
        "recipes.distill.distill", lambda beliefs: taught.append(np.asarray(beliefs)) or distill(beliefs)
    )
    other = (f"--run_dir={tmp_path / 'distilled'}", "--batch_size=4", "--no_second_opinion")
    code, _, err = as_a_user("distill", *verified, *other, "--folds=2", "--rounds=0", "--epochs=1")
    assert code == 0, err
    table = read_labels(tmp_path / "distilled" / "labels.parquet")
    wrong = np.asarray(table.extras["known_wrong"])
    assert wrong.any()
    assert all((beliefs[wrong, table.noisy_label[wrong]] == 0).all() for beliefs in taught)
    assert len(taught) > 1


@pytest.mark.slow
def test_two_networks_pairs_agreement_and_rounds_run(run):
    run("baseline", "--mix=mixup", folder="mixup").check("plain", set(), set(), {"test_accuracy", "recovery"})
    taught = run("co_teaching", folder="co_teaching")
    taught.check("co_teaching", set(), set(), {"agreement", "kept", "recovery"})
    assert 0 < taught.config["options"]["forget_rate"] < 0.6
    divided = run("divide_mix", folder="divide_mix")
    divided.check("divide_mix", set(), {"clean", "refined_posterior"}, {"labelled", "prior_divergence", "recovery"})
    assert [row["labelled"] == 1 for row in divided.rows] == [True, False]
    learned = run("agreement", folder="agreement")
    learned.check("agreement", set(), set(), {"test_accuracy", "issue_auc"})
    assert 0 < learned.summary["agreed"] < 300
    beliefs = [run("distill", f"--rounds={rounds}", folder=f"rounds-{rounds}").table.posterior for rounds in (0, 1)]
    assert not np.allclose(*beliefs, atol=0.01)


@pytest.mark.slow
def test_a_run_starts_where_another_ended(run, arrays, as_a_user, tmp_path):
    first = run("elr", folder="first")
    still = ("--learning_rate=1e-12", "--epochs=1", f"--init={first.folder}")
    second = run("baseline", *still, folder="second")
    assert second.rows[-1]["test_accuracy"] == pytest.approx(first.rows[-1]["test_accuracy"], abs=1e-6)
    (first.folder / "model.safetensors").rename(tmp_path / "kept.safetensors")  # as if it had been stopped at its end
    again = run("baseline", *still, folder="again")
    assert again.rows[-1]["test_accuracy"] == second.rows[-1]["test_accuracy"]
    (tmp_path / "kept.safetensors").rename(first.folder / "model.safetensors")
    assert run("baseline", *still[:2], folder="third").rows[-1]["test_accuracy"] != second.rows[-1]["test_accuracy"]
    with np.load(arrays) as held:
        four = {name: held[name] for name in held.files if name != "class_names"}
    four["noisy_web"] = np.where(np.arange(len(four["noisy_web"])) % 50 == 0, 3, four["noisy_web"])
    np.savez(tmp_path / "four.npz", **four)
    options = (f"--dataset=npz:{tmp_path}/four.npz", "--labels=web", f"--run_dir={tmp_path}/fourth", "--epochs=1")
    code, _, err = as_a_user("elr", *options, "--widths", "16", f"--init={first.folder}/model.safetensors")
    assert (code, "the last layer is drawn anew, for that run had other classes" in err) == (0, True), err
    code, _, err = as_a_user("elr", *options[:2], "--widths", "16", "16", f"--init={first.folder}")
    assert (code, "params/model/hidden_1/bias is missing: give the run of a mlp" in err) == (1, True), err
    deeper = run("elr", "--widths", "16", "16", "--epochs=1", folder="deeper")
    code, _, err = as_a_user("elr", *options[:2], "--widths", "16", f"--init={deeper.folder}")
    assert (code, "params/model/hidden_1/bias has no place here: give the run of a mlp" in err) == (1, True), err
    code, _, err = as_a_user("elr", *options[:2], "--widths", "8", f"--init={first.folder}")
    assert code == 1
    assert re.search(
        r"params/model/\S+ has the shape .*16.*, here .*8.*: give the run of a mlp of the same widths", err
    ), err


def test_a_run_whose_own_labels_do_not_help_asks_others(run):
    untrained = ("--learning_rate=1e-9", "--epochs=1")
    alone = run("baseline", *untrained, "--no_second_opinion", folder="alone")
    helped = run("baseline", *untrained, folder="helped")
    assert (alone.summary["cleaned_with"], "own" in alone.summary["guard"]) == ("classifier", False)
    assert helped.summary["cleaned_with"] in ("classifier_joined", "second_opinion")
    given, last = helped.summary["given_label_recovery"], helped.summary["last"]
    assert alone.summary["last"]["recovery"] < given < last["recovery"]
    assert last["recovery_classifier"] == alone.summary["last"]["recovery"] == alone.rows[-1]["recovery"]
    np.testing.assert_array_equal(helped.table.extras["classifier_posterior"], alone.table.posterior)
    assert helped.summary["guard"]["own"]["line"] == alone.summary["guard"]["line"]
    assert "The system's own cleaned labels look" in html.unescape(helped.page)


def test_distillation_leaves_beliefs_that_trusted_labels_count_in(run):
    products = run("distill", "--clean_fraction=0.2", "--folds=3")
    products.check("distill", set(), {"classifier", "trusted"}, {"test_accuracy", "issue_auc"})
    assert (products.summary["cleaned_with"], products.table.extras["trusted"].sum()) == ("beliefs", 60)
    assert products.rows[-1]["recovery"] > products.summary["given_label_recovery"] + 0.05


def test_logistic_regression_takes_the_length_that_held_out_labels_speak_for(run, monkeypatch):
    tried = []

    def hits(trainer, data, key, *, folds, stages):
        tried.append((folds, stages.epochs))
        said = data.observed if stages.epochs == 1 else (data.observed + 1) % 3
        return SimpleNamespace(probs=np.eye(3)[said])

    monkeypatch.setattr(linear, "out_of_fold", hits)
    products = run("linear", "--folds=2", "--epochs=4")
    products.check("linear", set(), set(), {"test_accuracy", "issue_auc"})
    assert sorted(set(tried)) == [(2, 1), (2, 4)]
    assert len(tried) == 2 * len(linear.STRENGTHS)
    assert products.rows[-1]["epoch"] == products.summary["epochs"] == 1
    asked = products.config["options"]  # what was chosen is not known when the folder is opened
    assert (asked["epochs"], asked["weight_decay"]) == (4, None)
    assert products.summary["weight_decay"] in linear.STRENGTHS
    assert products.summary["model"] == "linear"


def test_logistic_regression_tells_of_a_taken_folder_before_its_folds(arrays, as_a_user, monkeypatch, tmp_path):
    (tmp_path / "labels.parquet").touch()
    monkeypatch.setattr(linear, "out_of_fold", None)
    options = [option.format(arrays=arrays) for option in MINE]
    code, _, err = as_a_user("linear", *options, f"--run_dir={tmp_path}")
    assert code == 1
    assert err.endswith(f"error: {tmp_path} exists: go on with it by --resume, or choose another --run_dir\n")


def test_icnm_runs(run):
    run("icnm").check("icnm", set(), {"classifier"}, {"test_accuracy", "recovery_bayes"})


def test_a_crowd_leaves_its_annotators_and_answers(run):
    options = ("--answers=planted:2", "--folds=2", "--web", "--clean_fraction=0.2")
    products = run("crowd", *options)
    columns = {"classifier", "answers_given", "crowd_posterior", "trusted"}
    products.check("crowd", {"annotators.png"}, columns, {"certainty", "recovery_crowd", "recovery_answers"})
    assert products.rows[-1]["recovery_crowd"] > products.summary["given_label_recovery"] + 0.05
    assert (products.summary["answers"], products.summary["annotators"]) == (900, 51)
    people = list(csv.DictReader((products.folder / "annotators.csv").read_text().splitlines()))
    assert len(people) == 51
    assert people[1]["annotator"].startswith("skilled")
    assert not people[-1]["annotator"].startswith("skilled")
    assert pq.read_table(products.folder / "answers.parquet").num_rows == 900
    assert "<h2>Whom to trust</h2>" in products.page
    assert "--trusted=decided.csv" in (products.folder / "crowd.txt").read_text()


@pytest.mark.slow
def test_single_answers_are_judged_in_folds_and_repeated_ones_count_once(run, arrays, monkeypatch, tmp_path):
    asked, counted, told = [], [], []

    def out_of_fold(judges, split, key, *, folds, stages):
        asked.append(folds)
        return SimpleNamespace(probs=np.full((len(split), 3), 1 / 3, np.float32))

    def by_item(answers, counts=None):
        counted.append((~counts).sum())
        return kept(answers, counts)

    kept = Answers.by_item
    monkeypatch.setattr(crowd, "out_of_fold", out_of_fold)
    monkeypatch.setattr(Answers, "by_item", by_item)
    monkeypatch.setattr(crowd.Run, "warn", lambda run, text: told.append(text))
    run("crowd", "--answers=planted:1", "--epochs=1")
    assert asked == [5]
    assert counted == [0]
    with np.load(arrays) as held:
        true = held["label"]
    rng, n = np.random.default_rng(0), len(true)
    slips = [(true + (rng.random(n) < share) * rng.integers(1, 3, n)) % 3 for share in [0.25] * 7 + [0.45]]
    np.save(tmp_path / "said.npy", np.stack([*slips, slips[-1], slips[-1]], axis=1))  # of ten, three copy
    run("crowd", f"--answers={tmp_path / 'said.npy'}", "--epochs=1", folder="several")
    assert asked == [5]
    assert counted == [0, 2 * n]
    assert told[-1] == "3 annotators repeat one another, and count once an item: 7, 8, 9"


def test_answers_of_a_crowd_come_with_trusted_labels_and_from_label_studio(tmp_path):
    train = Split(np.zeros((4, 2), np.float32), np.array([0, 1, 1, 0], np.int32), None)
    data = Dataset("mine", ("ant", "bee"), train, None)
    (tmp_path / "said.csv").write_text("item,annotator,label\n0,a,ant\n1,a,bee\n1,b,bee\n3,b,bee\n")
    (tmp_path / "true.csv").write_text("item,label\n0,bee\n")
    options = crowd.CrowdOptions(answers=str(tmp_path / "said.csv"), trusted=tmp_path / "true.csv", web=True)
    answers, seen = crowd.answered(options, data)
    assert seen.train.trusted_label.tolist() == [1, -1, -1, -1]
    assert seen.train.noisy_label.tolist() == [0, 1, 1, 1]  # people's; of the third, which nobody has seen, the web's
    assert answers.of_web.tolist() == [False, False, True]
    nlx.consensus(answers).write(tmp_path)
    back, _ = crowd.answered(crowd.CrowdOptions(answers=str(tmp_path / "tasks.json")), data)
    assert (len(back), back.trusted.tolist(), back.of_web.tolist()) == (8, [1, -1, -1, -1], [False, True, False])


@pytest.mark.slow
def test_noise_types_leave_a_type_for_each_example_and_a_ranking(run):
    options = ("--clean_fraction=0.3", "--pretrain_epochs=1", "--types_epochs=1", "--epochs=1")
    products = run("noise_types", *options)
    products.check("noise_types", {"rank-precision.png"}, {"noise_type", "classifier"}, {"log_evidence", "trusted"})
    assert [row["stage"] for row in products.rows] == ["clean", "types", "mixed"]
    np.testing.assert_allclose(products.table.extras["noise_type"].sum(1), 1, rtol=1e-5)
    assert products.table.extras["trusted"].sum() == 90
    assert products.rows[-1]["trusted"] == pytest.approx(1 / 3, abs=0.05)  # upsampled to half the noisy ones


@pytest.mark.slow
def test_self_learning_leaves_corrected_labels_and_their_accuracy(run):
    options = ("--start_epoch=1", "--prototypes=2", "--clean_fraction=0.3", "--verified", "--clean_epochs=1")
    products = run("self_learning", *options)
    pictures = {"label-accuracy.png", "density.png", "separation.png"}
    columns = {"corrected_label", "first_label", "margin", "sigma", "classifier_posterior"}
    products.check("self_learning", pictures, columns, {"recovery_corrected_label"})
    assert [row["stage"] for row in products.rows] == ["training", "training", "clean"]
    assert products.rows[-1]["recovery_corrected_label"] > products.summary["given_label_recovery"]
    assert products.rows[0]["labels_changed"] == 0 < products.rows[1]["labels_changed"]


def test_the_field_of_one_label_per_example_needs_no_chains(run):
    products = run("crf", "--transition=true")
    products.check("crf_analytic", set(), {"classifier"}, {"alpha", "recovery_posterior"})
    alphas = [row["alpha"] for row in products.rows]
    options = products.config["options"]
    assert options["alpha_start"] == 8 > alphas[0] > alphas[1] > options["alpha_end"] - 1e-5 == 0.25 - 1e-5


@pytest.mark.parametrize(
    "field", ["no_link", *(pytest.param(f, marks=pytest.mark.slow) for f in ("hidden", "no_hidden", "no_pairwise"))]
)
def test_the_field_of_two_vocabularies_learns_from_its_clean_part(tmp_path, field):
    rng = np.random.default_rng(0)
    seen = rng.integers(0, 2, (120, 3), dtype=np.uint8)
    said = np.concatenate([seen, seen[:, :2]], axis=1) & (rng.uniform(size=(120, 5)) < 0.8)
    features = (2.0 * seen + rng.normal(size=(120, 3))).astype(np.float32)
    train, test = Split(features[:80], said[:80], seen[:80]), Split(features[80:], None, seen[80:])
    data = Dataset("words", ("ant", "bee", "cat"), train, test, ("bee", "sting", "honey", "hum", "nest"))
    options = crf.CRFOptions(
        field=field,
        clean_fraction=0.4,
        hidden=2,
        chains=4,
        sweeps=2,
        auxiliary_steps=40,
        generator="hash",
        prediction="mean_field",
        widths=(8,),
        batch_size=16,
        epochs=2,
        run_dir=tmp_path,
    )
    with jax.numpy_dtype_promotion("standard"):  # optax's schedules need it
        run_recipe(options, crf.train, data=data)
    products = Products(tmp_path, test)
    sampled = set() if field == "no_pairwise" else {"flip_rate", "noisy_gap"}
    products.check("crf", set(), {"classifier"}, {"alpha", "test_map", "posterior_map_posterior"} | sampled)
    assert 0 < products.summary["auxiliary_cross_entropy_last"] < products.summary["auxiliary_cross_entropy_first"]
    assert (products.config["options"]["alpha_start"], products.config["options"]["alpha_end"]) == (40, 5)
    assert products.table.posterior.shape == (80, 3)
    np.testing.assert_array_equal(products.table.noisy_label[:, [0, 2]], 0)  # no word for ants or cats


@pytest.mark.slow
def test_a_pair_begins_from_a_pair_and_one_network_from_either(run):
    two, one = run("co_teaching", folder="two"), run("elr", folder="one")
    still = ("--learning_rate=1e-12", "--epochs=1")
    for recipe, start in (("co_teaching", two), ("elr", two), ("co_teaching", one), ("baseline", one)):
        name = f"{recipe}-{start.folder.name}"
        again = run(recipe, *still, f"--init={start.folder}", folder=name)
        if (recipe == "co_teaching") == (start is two):
            assert again.rows[-1]["test_accuracy"] == pytest.approx(start.rows[-1]["test_accuracy"], abs=1e-6), name
