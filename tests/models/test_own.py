"""Weights of runs: which file is meant."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from nlx.arguments import ArgumentError
from nlx.models.own import file_of, of_a_run


def test_a_folder_means_its_model_and_one_of_several_seeds_has_to_be_named(tmp_path):
    folder, foreign = tmp_path / "run", tmp_path / "resnet.safetensors"
    folder.mkdir()
    save_file({"params/model/head/dense/bias": np.zeros(2, np.float32)}, folder / "model.safetensors")
    save_file({"fc.bias": np.zeros(2, np.float32)}, foreign)
    assert file_of(folder) == folder / "model.safetensors"
    assert (of_a_run(folder), of_a_run(foreign), file_of(foreign)) == (True, False, foreign)
    (tmp_path / "many" / "seed-0").mkdir(parents=True)
    with pytest.raises(
        ArgumentError, match=r"holds the runs of several seeds: name one of them, such as .*many/seed-0"
    ):
        of_a_run(tmp_path / "many")
