"""One sentence that names the fix for every mistake that a user makes, before anything is trained."""

import numpy as np
import pytest

MINE = ("--dataset=npz:{arrays}", "--labels=web")
TAGS = ("--dataset=npz:{tags}",)
UNKNOWN = ("--dataset=npz:{unlabelled}",)
MISTAKES = {
    "unknown data set": ("can", ("--dataset=digit",), "digits"),
    "missing file": ("can", ("--dataset=npz:no/such.npz",), "no/such.npz"),
    "unknown labels": ("can", ("--dataset=npz:{arrays}", "--labels=worst"), "web"),
    "lambda": ("can", ("--regularizer=-1",), "--regularizer must be at least 0, got -1.0"),
    "noise rate": ("can", ("--dataset=digits", "--noise=symmetric:1.5"), "1.5"),
    "noise kind": ("can", ("--dataset=digits", "--noise=salt:0.5"), "shuffle"),
    "model": ("can", (*MINE, "--model=resnet19"), "--model=resnet19 is not known"),
    "batch": ("can", (*MINE, "--batch_size=5000"), "--batch_size=5000 is more than the 300 training examples"),
    "accumulated": (
        "elr",
        (*MINE, "--epochs=2", "--batch_size=50", "--accumulate=13"),
        "more than the 12 steps of the",
    ),
    "epochs": ("can", (*MINE, "--epochs=0"), "--epochs must be above 0"),
    "no official files": ("can", ("--dataset=cifar10n", "--labels=worst", "--data_dir={tmp}"), "CIFAR"),
    "share of clean labels": ("baseline", (*MINE, "--clean_fraction=1.5"), "--clean_fraction must lie in [0, 1)"),
    "share of training": ("baseline", (*MINE, "--training_fraction=0"), "--training_fraction must lie in (0, 1]"),
    "no clean labels to trust": ("noise_types", (*UNKNOWN, "--clean_fraction=0.1"), "no true training labels to trust"),
    "forward on several labels": ("baseline", (*TAGS, "--loss=forward"), "--loss=forward is for one label per example"),
    "no file of T": ("baseline", (*MINE, "--loss=forward", "--transition=no/such.npy"), "no/such.npy"),
    "no kind of T": ("baseline", (*MINE, "--loss=forward", "--transition=guess"), "--transition=guess is not known"),
    "no run for T": (
        "baseline",
        (*MINE, "--loss=forward", "--transition=confident:no/such.parquet"),
        "no/such.parquet",
    ),
    "T of other data": ("baseline", (*MINE, "--loss=forward", "--transition={square}"), "the data have 3 classes"),
    "T is none": ("baseline", (*MINE, "--loss=forward", "--transition={broken}"), "--transition={broken}: "),
    "T has no inverse": ("baseline", (*MINE, "--loss=backward", "--transition={flat}"), "--loss=backward: "),
    "T without truth": (
        "baseline",
        (*UNKNOWN, "--loss=forward", "--transition=true"),
        "--transition=true needs true training labels",
    ),
    "T without trust": ("baseline", (*MINE, "--loss=forward", "--transition=trusted"), "add --clean_fraction=0.1, say"),
    "beta": ("baseline", (*MINE, "--loss=bootstrap_soft", "--beta=2"), "--beta must lie in [0, 1], got 2.0"),
    "outliers that nobody knows": ("noise_layer", (*MINE, "--layer=outliers"), "add --known_outliers=0.1, say"),
    "no outliers": (
        "noise_layer",
        (*MINE, "--layer=outliers", "--known_outliers=0.1"),
        "has no known outliers: take --noise=outlier:0.5, say",
    ),
    "given T, several labels": (
        "noise_layer",
        (*TAGS, "--layer=given"),
        "a given T or outliers are for one label per example",
    ),
    "strength": ("noise_layer", (*MINE, "--strength=-1"), "--strength must be at least 0, got -1.0"),
    "no answers": ("crowd", (*MINE, "--answers=no/such.csv"), "no/such.csv: no such file"),
    "answers about no rows": ("crowd", (*MINE, "--answers={said}"), "items must be rows of the training set"),
    "answers planted on nothing": ("crowd", UNKNOWN, "no true labels to plant answers on: give a table by --answers"),
    "answers planted by none": ("crowd", (*MINE, "--answers=planted:0"), "an item must have between 1 and 50 answers"),
    "answers of several labels": ("crowd", TAGS, "crowds are for one label per example"),
    "idle folds": ("crowd", (*MINE, "--method=conal", "--folds=2"), "--folds does nothing with --method=conal"),
    "momentum of ELR": ("elr", (*MINE, "--target_momentum=1"), "--target_momentum must lie in [0, 1), got 1.0"),
    "rate of SOP": ("sop", (*MINE, "--given_rate=-1"), "--given_rate must be at least 0, got -1.0"),
    "distillation, several labels": ("distill", TAGS, "distillation is for one label per example"),
    "distillation, one fold": ("distill", (*MINE, "--folds=1"), "--folds must lie in [2, 100], got 1"),
    "distillation, large batches": ("distill", (*MINE, "--batch_size=300"), "the 240 training examples"),
    "start of predictions": ("joint_optimization", (*MINE, "--start_share=2"), "--start_share must lie in [0, 1]"),
    "joint optimization, several labels": (
        "joint_optimization",
        TAGS,
        "joint optimization is for one label",
    ),
    "logistic regression, several labels": ("linear", TAGS, "logistic regression is for one label per"),
    "logistic regression, crops": ("linear", (*MINE, "--augmentation=crop"), "--augmentation does nothing in logistic"),
    "agreement, several labels": ("agreement", TAGS, "agreement is for one label per example"),
    "logistic regression, a network": ("linear", (*MINE, "--model=mlp"), "--model does nothing in logistic regression"),
    "co-teaching, several labels": ("co_teaching", TAGS, "co-teaching is for one label per example"),
    "DivideMix, several labels": ("divide_mix", TAGS, "DivideMix is for one label per example"),
    "DivideMix, mixed twice": ("divide_mix", (*MINE, "--mix=mixup"), "--mix does nothing in DivideMix, which mixes"),
    "warm-up of DivideMix": ("divide_mix", (*MINE, "--warm_up=0"), "--warm_up must lie in (0, 1)"),
    "CleanNet, several labels": ("clean_net", TAGS, "CleanNet is for one label per example"),
    "CleanNet without trust": (
        "clean_net",
        (*MINE, "--clean_fraction=0"),
        "CleanNet learns from trusted labels, of which some are right; raise --clean_fraction, say",
    ),
    "CleanNet, mixed": ("clean_net", (*MINE, "--mix=mixup"), "--mix does nothing in CleanNet, which keeps"),
    "warm-up of CleanNet": ("clean_net", (*MINE, "--warm_up=0"), "--warm_up must lie in (0, 1)"),
    "start of ICNM": ("icnm", (*MINE, "--start=0"), "--start must be above 0, got 0.0"),
    "types without trust": ("noise_types", (*MINE, "--clean_fraction=0"), "add --clean_fraction=0.1, say"),
    "types without truth": ("noise_types", UNKNOWN, "no true training labels to trust"),
    "types of several labels": ("noise_types", TAGS, "noise types are for one label per example"),
    "types, too few trusted": (
        "noise_types",
        (*MINE, "--clean_fraction=0.05", "--batch_size=32"),
        "--batch_size=32 must lie between 1 and the 15 clean stage's examples",
    ),
    "never corrected": (
        "self_learning",
        (*MINE, "--start_epoch=9", "--epochs=2"),
        "--start_epoch=9 comes after the last of 2 epochs; lower it",
    ),
    "last before first": (
        "self_learning",
        (*MINE, "--start_epoch=5", "--last_correction=3"),
        "--last_correction=3 comes before --start_epoch; raise it",
    ),
    "verified by nobody": ("self_learning", (*MINE, "--verified"), "add --clean_fraction=0.1, say"),
    "prototypes of several labels": ("self_learning", TAGS, "self-learning is for one label per example"),
    "field without trust": ("crf", TAGS, "learns from clean labels; add --clean_fraction=0.2, say"),
    "field without truth": ("crf", (*UNKNOWN, "--transition=true"), "--transition=true needs true training labels"),
    "no array of T": (
        "baseline",
        (*MINE, "--loss=forward", "--transition={empty}"),
        "is no array that numpy.save wrote",
    ),
    "several arrays of T": (
        "baseline",
        (*MINE, "--loss=forward", "--transition={several}"),
        "{several} must hold one array of real numbers",
    ),
    "new heads of nothing": (
        "noise_types",
        (*MINE, "--strategy=mixed", "--reinit_heads"),
        "mixed has no stage before its last one",
    ),
    "end of learning": ("noise_layer", (*MINE, "--learn_until=-1"), "--learn_until must be at least 0, got -1.0"),
    "limit": ("self_learning", (*MINE, "--limit=nan"), "--limit must be finite, got nan"),
    "endless alpha": ("crf", (*MINE, "--alpha_end=inf"), "--alpha_end must lie in [0, 10000], got inf"),
    "rho": ("can", (*MINE, "--rho_rate=nan"), "--rho_rate must be at least 0, got nan"),
    "an oracle unasked": ("baseline", (*MINE, "--loss=backward"), "say by --transition where the matrix comes from"),
    "an oracle unasked, given": ("noise_layer", (*MINE, "--layer=given"), "say by --transition where the matrix"),
    "an oracle unasked, CRF": ("crf", MINE, "say by --transition where the matrix comes from"),
    "idle trust": ("can", (*MINE, "--clean_fraction=0.1"), "--clean_fraction does nothing in CAN"),
    "idle trust, baseline": ("baseline", (*MINE, "--clean_fraction=0.1"), "--clean_fraction does nothing here"),
    "idle clean weight": (
        "crf",
        (*MINE, "--transition=true", "--clean_weight=3"),
        "--clean_weight does nothing without",
    ),
    "clean weight": ("crf", (*MINE, "--clean_weight=-1"), "--clean_weight must lie in [0, 10000], got -1"),
    "idle field": ("crf", (*MINE, "--transition=true", "--field=hidden"), "--field does nothing for one label"),
    "idle q": ("baseline", (*MINE, "--q=0.5"), "--q does nothing with --loss=cross_entropy: leave it out"),
    "idle strength": ("noise_layer", (*MINE, "--layer=given", "--strength=1"), "--strength does nothing with --layer"),
    "idle crops": ("can", (*MINE, "--augmentation=crop"), "--augmentation does nothing for features: leave it out"),
    **{
        f"idle {option}": ("sop", (*MINE, f"--{option}"), f"--{option.split('=')[0]} does nothing for --dataset=npz:")
        for option in ("skip_broken", "allow_outside", "label_separator=|", "image_size=32", "in_memory_gib=0")
    },
    "idle folder": ("can", ("--dataset=digits", "--skip_broken"), "--skip_broken does nothing for --dataset=digits:"),
    "idle table": ("can", ("--dataset=hf:no/such", "--allow_outside"), "--allow_outside does nothing for --dataset=hf"),
    "idle quantile": ("self_learning", (*MINE, "--select=kmeans", "--quantile=0.3"), "--quantile does nothing with"),
    "idle weight": ("noise_types", (*MINE, "--strategy=mixed", "--clean_weight=2"), "--clean_weight does nothing with"),
    "idle start": ("can", (*MINE, "--start=random", "--prediction_weight=2"), "--prediction_weight does nothing with"),
    "all held out": ("baseline", (*MINE, "--validation_fraction=0.999"), "leaves no example to train on; lower it"),
    "idle decay": ("can", (*MINE, "--schedule=cosine", "--decay_every=0.5"), "--decay_every does nothing with"),
    "T of nothing": ("baseline", (*MINE, "--transition=true"), "--transition does nothing with --loss=cross_entropy"),
    **{
        f"{option} without end": (
            recipe,
            (*TAGS, "--clean_fraction=0.2", f"--{option}=1000000000"),
            f"--{option} must lie",
        )
        for recipe, option in (("crf", "chains"), ("crf", "sweeps"), ("crf", "hidden"), ("crf", "auxiliary_steps"))
    },
    "prototypes without end": ("self_learning", (*MINE, "--prototypes=1000000000"), "--prototypes must lie in"),
    "samples without end": ("can", (*MINE, "--samples=1000000000"), "--samples must lie in [1, 10000]"),
    "widths without end": ("can", (*MINE, "--widths=1000000000"), "make params/model/hidden_0/kernel of"),
    "quality without end": ("can", (*MINE, "--quality_dim=1000000000"), "smaller, by --widths or what else sets"),
    "alpha": ("crf", (*MINE, "--alpha_start=-1"), "--alpha_start must lie in [0, 10000], got -1.0"),
}


@pytest.fixture(scope="module")
def files(arrays, tmp_path_factory):
    """Paths by name: data of all kinds, and matrices."""
    folder = tmp_path_factory.mktemp("files")
    features = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    tags = np.random.default_rng(1).integers(0, 2, (200, 3))
    np.savez(folder / "tags.npz", features=features, noisy_label=tags, label=tags)
    np.savez(folder / "unlabelled.npz", features=features, noisy_label=np.arange(200) % 3)
    np.save(folder / "square.npy", np.eye(2))
    (folder / "said.csv").write_text("item,annotator,label\n300,a,bee\n1,a,cat\n")
    np.save(folder / "broken.npy", np.eye(3) + 1)
    np.save(folder / "flat.npy", np.full((3, 3), 1 / 3))
    (folder / "empty.npy").touch()
    np.savez(folder / "several.npz", np.eye(3))
    (folder / "several.npz").rename(folder / "several.npy")
    return {"arrays": arrays, "tmp": folder} | {path.stem: path for path in folder.iterdir()}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_gets_one_clear_sentence(name, files, as_a_user, tmp_path):
    recipe, options, told = MISTAKES[name]
    code, out, err = as_a_user(recipe, *(o.format(**files) for o in options), f"--run_dir={tmp_path / 'run'}")
    assert code == 1
    assert out == ""
    assert len(err.strip().splitlines()) == 1, err
    assert err.startswith("error: ")
    assert told.format(**files) in err
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ({"noisy_label": np.array([0, 1, 7, 0])}, "7"),
        ({"features": np.array([[0.0], [np.nan], [1], [2]], np.float32)}, "row 1 is not finite"),
        ({"noisy_label": np.array([0, 1])}, "noisy_label"),
    ],
    ids=["label out of range", "NaN features", "lengths differ"],
)
def test_broken_arrays_are_named(broken, told, as_a_user, tmp_path):
    whole = {"features": np.zeros((4, 1), np.float32), "noisy_label": np.array([0, 1, 1, 0]), "class_names": ["a", "b"]}
    np.savez(tmp_path / "a.npz", **{**whole, **broken})
    code, _, err = as_a_user("baseline", f"--dataset=npz:{tmp_path / 'a.npz'}", f"--run_dir={tmp_path / 'run'}")
    assert code == 1
    assert len(err.strip().splitlines()) == 1
    assert told in err


def test_a_bad_row_of_a_csv_is_named(as_a_user, tmp_path):
    (tmp_path / "labels.csv").write_text("path,noisy\nnowhere.png,cat\n")
    code, _, err = as_a_user("baseline", f"--dataset=folder:{tmp_path}", f"--run_dir={tmp_path / 'run'}")
    assert code == 1
    assert len(err.strip().splitlines()) == 1
    assert "row 2" in err
