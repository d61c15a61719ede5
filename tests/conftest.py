"""Strict settings for every test: no silent rank or dtype promotion, and eight CPU devices to shard over.

With ``JAX_PLATFORMS=cuda,cpu`` set, what runs on one device runs on a GPU instead (see CONTRIBUTING).
"""

import gc
import importlib
import inspect
import logging
import os
from pathlib import Path

from tests.compiling import KEPT, QUICK

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # others would wait for work on a core that the next test needs
if os.environ.setdefault("JAX_PLATFORMS", "cpu") == "cpu":
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK}"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax
import numpy as np
import pytest

gc.freeze()  # what is imported stays, and is many objects to go through
gc.set_threshold(100_000, 50, 100)

jax.config.update("jax_compilation_cache_dir", str(KEPT))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


_MAPPINGS = 10_000  # of memory, with some 3 GB; every compiled program takes some, and Linux allows 65,530


@pytest.fixture(autouse=True, scope="module")
def few_programs():
    """Let compiled programs go before there are so many that the process runs out of memory or of mappings."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > _MAPPINGS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def of_one_device(tmp_path_factory):
    """Environment of a process of its own, with one device as a reader has; what was compiled before is read."""
    kept = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled"))}
    quick = {"XLA_FLAGS": QUICK, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return {**os.environ, "JAX_PLATFORMS": "cpu", **quick, **kept}


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture(scope="session")
def arrays(tmp_path_factory):
    """Three clusters as features, a third of the labels wrong, as an npz file of a user's own."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 400)
    centres = rng.normal(0, 3, (3, 6))
    noisy = np.where(rng.uniform(size=400) < 0.3, rng.integers(0, 3, 400), label)
    path = tmp_path_factory.mktemp("data") / "arrays.npz"
    features = (centres[label] + rng.normal(size=(400, 6))).astype(np.float32)
    np.savez(
        path,
        features=features[:300],
        noisy_web=noisy[:300],
        label=label[:300],
        test_features=features[300:],
        test_label=label[300:],
        class_names=np.array(["ant", "bee", "cat"]),
    )
    return path


@pytest.fixture
def on_one_device(monkeypatch):
    """Trainers of this process take one device, where they are not told which."""
    from nlx.training import trainer
    from nlx.training.mesh import make_mesh

    monkeypatch.setattr(trainer, "make_mesh", lambda: make_mesh(jax.devices()[:1]))


@pytest.fixture
def as_a_user(capsys, on_one_device):
    """Function that runs a recipe with options, on one device, and returns its exit code, output and errors."""
    from nlx.experiment.main import main

    absl = logging.getLogger("absl")
    level = absl.level

    def call(name, *options):
        recipe = importlib.import_module(f"recipes.{name}")
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            code = main(options_type(recipe), recipe.train, [str(option) for option in options])
        return code, *capsys.readouterr()

    yield call
    absl.setLevel(level)


def options_type(recipe):
    """The dataclass of a recipe's options."""
    return inspect.get_annotations(recipe.train, eval_str=True)["options"]
