"""A recipe on streamed pictures in two processes with two devices each, and in one with four."""

import json
import sys
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pytest
from PIL import Image

from nlx.cleaning.label_files import read_labels
from nlx.data import batches, decode
from nlx.experiment import launch
from nlx.experiment.main import main
from nlx.training import trainer
from nlx.training.mesh import make_mesh
from recipes import elr
from tests.processes import assert_well, outcome, two

N = 512  # whole batches of every pass, so that shares are equal
OPTIONS = ("--model=mlp", "--widths=8", "--image_size=8", "--in_memory_gib=0", "--epochs=2", "--batch_size=64")


def run(folder, name, *more):
    """The recipe; how many pictures it has decoded in this process, and how many it has looked at before."""
    options = (f"--dataset=folder:{folder}", f"--run_dir={folder / name}", *OPTIONS, *more)
    read, surveyed = [], []  # a mock's own counter loses calls of threads
    with (
        mock.patch.object(batches, "decode", side_effect=noted(batches.decode, read)),
        mock.patch.object(decode, "_survey", side_effect=noted(decode._survey, surveyed)),
    ):
        assert main(elr.ELROptions, elr.train, list(options)) == 0
    return len(read), len(surveyed)


def noted(function, calls):
    """The function, which also notes each of its calls."""

    def call(*args, **options):
        calls.append(None)
        return function(*args, **options)

    return call


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    rows = ["path,noisy,label"]
    for i in range(N):
        true, said = i % 2, i % 2 ^ (i % 5 == 0)
        Image.fromarray(rng.integers(60 * true, 180 + 60 * true, (8, 8, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{said},{true}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--shuffle_groups=4",)], ids=["all", "groups"])
def test_each_host_decodes_its_share_and_the_labels_are_those_of_one(pictures, monkeypatch, more):
    with two(__file__, lambda address, i: (pictures, f"{address},{i},2", *more)) as processes:
        monkeypatch.setattr(trainer, "make_mesh", lambda: make_mesh(jax.devices()[:4]))
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            alone = run(pictures, "one", *more)
        found = outcome(processes)
    assert_well(found)
    shares = [json.loads(out.splitlines()[-1]) for out in found.out]
    assert shares == [[alone[0] // 2, N // 2]] * 2
    assert alone[1] == N
    one, other = (read_labels(pictures / name / "labels.parquet") for name in ("one", "two"))
    np.testing.assert_array_equal(other.cleaned_label, one.cleaned_label)
    np.testing.assert_allclose(other.posterior, one.posterior, rtol=1e-3, atol=1e-4)
    rows = [(pictures / name / "metrics.jsonl").read_text().splitlines() for name in ("one", "two")]
    losses = [[json.loads(row)["train_loss"] for row in lines] for lines in rows]
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_processes_that_should_be_several_and_are_alone_are_refused(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")
    with pytest.raises(launch.ArgumentError, match=r"SLURM_NTASKS=4 says .* start them by srun"):
        launch.join("auto")
    launch.join("no")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    launch.join("auto")
    for wrong in ("here", "localhost,0", "localhost:9000,0", "localhost:9000,one,2"):
        with pytest.raises(launch.ArgumentError, match=f"such as localhost:9000,0,2, got {wrong}"):
            launch.join(wrong)
    with pytest.raises(launch.ArgumentError, match="cannot be joined by `distributed`=localhost:9000,2,2"):
        launch.join("localhost:9000,2,2")


def test_a_launcher_that_says_where_the_others_are_is_left_to_jax(monkeypatch):
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **options: calls.append(args))
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    launch.join("auto")
    for name, value in {"SLURM_NTASKS": "2", "SLURM_STEP_NODELIST": "a,b"}.items():
        monkeypatch.setenv(name, value)
    launch.join("auto")
    launch.join("a:1,0,2")
    assert calls == [(), ("a:1", 2, 0)]


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]), "two", f"--distributed={sys.argv[2]}", *sys.argv[3:])))
