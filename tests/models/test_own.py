"""Weights of runs: where they began, and which file is meant."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from nlx.arguments import ArgumentError
from nlx.models.own import began_elsewhere, file_of, of_a_run


def run(folder, init=None):
    folder.mkdir()
    save_file({"params/model/head/dense/bias": np.zeros(2, np.float32)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"options": {"init": None if init is None else str(init)}}))
    return folder


@pytest.fixture
def foreign(tmp_path):
    save_file({"fc.bias": np.zeros(2, np.float32)}, tmp_path / "resnet.safetensors")
    return tmp_path / "resnet.safetensors"


def test_inputs_stay_normalized_as_they_were_where_a_run_began_with_weights_of_others(tmp_path, foreign):
    first = run(tmp_path / "first", foreign)
    second = run(tmp_path / "second", first)
    own = run(tmp_path / "own", run(tmp_path / "fresh"))
    assert [began_elsewhere(path) for path in (foreign, first, second, own)] == [True, True, True, False]
    foreign.unlink()
    assert began_elsewhere(second)
    (own / "config.json").unlink()
    assert not began_elsewhere(own)


def test_a_folder_means_its_model_and_one_of_several_seeds_has_to_be_named(tmp_path, foreign):
    folder = run(tmp_path / "run")
    assert file_of(folder) == folder / "model.safetensors"
    assert (of_a_run(folder), of_a_run(foreign), file_of(foreign)) == (True, False, foreign)
    (tmp_path / "many" / "seed-0").mkdir(parents=True)
    with pytest.raises(
        ArgumentError, match=r"holds the runs of several seeds: name one of them, such as .*many/seed-0"
    ):
        of_a_run(tmp_path / "many")
