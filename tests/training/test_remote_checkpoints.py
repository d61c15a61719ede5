"""Checkpoints in a bucket, of a server on this machine that speaks Google Storage's language."""

import importlib.util
import os
import subprocess
import sys

import pytest

from nlx.training.checkpoint import CheckpointError, Checkpoints
from tests.processes import ROOT, free_port

RECIPE = """
import logging, os, sys
from gcp_storage_emulator.server import create_server
logging.disable(logging.CRITICAL)
server = create_server("localhost", int(sys.argv[1]), in_memory=True, default_bucket="bucket")
server.start()
from nlx.experiment.main import main
from nlx.training.checkpoint import Checkpoints
from recipes import elr
options = ["--dataset=digits", "--noise=symmetric:0.4", "--widths=8", "--model=mlp", "--checkpoint_dir=gs://bucket/mine"]
whole, half = (f"--run_dir={sys.argv[2]}/{name}" for name in ("whole", "half"))
assert main(elr.ELROptions, elr.train, [*options[:-1], "--epochs=4", whole]) == 0
stops = []

class Stop(Exception):
    pass

def on_epoch(self, state, row):
    self.save(state)
    if row["epoch"] == 2 and not stops:
        stops.append(row)
        raise Stop

seen = Checkpoints.on_epoch
Checkpoints.on_epoch = on_epoch
try:
    main(elr.ELROptions, elr.train, [*options, "--epochs=4", half])
except Stop:
    pass
Checkpoints.on_epoch = seen
assert stops and not os.path.exists(f"{sys.argv[2]}/half/checkpoints")
assert main(elr.ELROptions, elr.train, [*options, "--epochs=4", half, "--resume"]) == 0
assert main(elr.ELROptions, elr.train, [*options, "--epochs=4", f"--run_dir={sys.argv[2]}/other"]) == 1
os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("gcsfs", "gcp_storage_emulator"))),
    reason="needs gcsfs, gcp-storage-emulator",
)
def test_a_run_goes_on_from_a_checkpoint_in_a_bucket(tmp_path):
    port = free_port()
    places = {
        "STORAGE_EMULATOR_HOST": f"http://localhost:{port}",
        "TENSORSTORE_GCS_HTTP_URL": f"http://localhost:{port}",
    }
    run = subprocess.run(
        [sys.executable, "-c", RECIPE, str(port), str(tmp_path)],
        env={**os.environ, **places, "PYTHONPATH": str(ROOT), "GOOGLE_AUTH_TOKEN_FOR_TESTING": "x"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    assert "going on after step" in run.stdout + run.stderr
    assert "gs://bucket/mine holds checkpoint" in run.stdout + run.stderr
    labels = [(tmp_path / name / "labels.parquet").read_bytes() for name in ("whole", "half")]
    assert labels[0] == labels[1]
    assert not (tmp_path / "gs:").exists()  # a bucket's address taken for a folder


@pytest.mark.skipif(importlib.util.find_spec("gcsfs") is not None, reason="gcsfs is here")
def test_without_what_reaches_a_bucket_the_package_is_named():
    with pytest.raises(CheckpointError, match=r"`checkpoint_dir`=gs://b/c cannot be reached: pip install 'nlx\[gcs\]'"):
        Checkpoints("gs://b/c")
