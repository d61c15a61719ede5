"""What a run would take: the compiler's figures, for devices that are here and for those that are not."""

import importlib.util
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nlx import losses, target
from nlx.arguments import ArgumentError
from nlx.data import Split
from nlx.experiment import plan
from nlx.methods.elr import elr
from nlx.methods.plain import plain
from nlx.methods.self_learning import self_learning
from nlx.models import build
from nlx.samplers.bits import default_generator
from nlx.training import state
from nlx.training.costs import costs_of
from nlx.training.mesh import make_mesh
from nlx.training.trainer import Trainer

N, F, K = 4096, 16, 4
SPLIT = Split(np.zeros((N, F), np.float32), np.zeros(N, np.int32), None)
MODEL = build("mlp", (F,), K, widths=(8,))
WEIGHTS = 4 * ((F + 1) * 8 + (8 + 1) * K)


def costs(method, devices, split=SPLIT):
    return costs_of(Trainer(MODEL, method, optax.sgd(0.1, momentum=0.9), batch_size=64, mesh=make_mesh(devices)), split)


@pytest.mark.parametrize("count", [1, 8])
def test_parts_are_bytes_on_each_device(count):
    found = costs(elr(), jax.devices()[:count])
    assert found.parts == {
        "weights": WEIGHTS,
        "optimizer": WEIGHTS,
        "examples": 4 * N * K // count,
        "data": 4 * N * (F + 1),
    }
    assert 4 * 64 * F // count < found.working < 4 * N * K
    assert found.bytes == sum(found.parts.values()) + found.working
    assert found.flops > 0


def test_between_epochs_memory_is_there_twice_and_all_features():
    method = self_learning(K, refresh_after=lambda epochs: True)
    found = costs(method, jax.devices()[:8])
    width = MODEL.apply(*MODEL.init(jax.random.key(0)), jnp.zeros((1, F)), False, None)[0]["features"].shape[1]
    assert found.between == found.parts["examples"] + 4 * N * width // 8
    assert found.bytes == sum(found.parts.values()) + max(found.working, found.between)
    assert costs(elr(), jax.devices()[:8]).between == 0


def test_what_a_step_takes_does_not_grow_with_the_examples():
    one, two = (costs(elr(), jax.devices()[:1], SPLIT.take(np.arange(n))) for n in (N // 2, N))
    assert two.working == one.working
    assert two.parts["examples"] == 2 * one.parts["examples"]


def test_a_plan_says_all_of_it_and_leaves_nothing(as_a_user, arrays, tmp_path):
    options = (f"--dataset=npz:{arrays}", "--labels=web", f"--run_dir={tmp_path}/run", "--batch_size=32", "--epochs=3")
    code, out, err = as_a_user("elr", *options, "--plan=here")
    assert (code, out) == (0, "")
    assert re.search(r"elr on \S+: 300 examples, 3 classes, mlp; 3 epochs, 27 steps of 32 examples on \d x cpu", err), (
        err
    )
    for told in ("memory of each device, MiB: ", " are there", "GFLOP: ", "on disk, MiB: "):
        assert told in err
    assert not (tmp_path / "run").exists()
    assert not target.is_planned()


@pytest.mark.parametrize(
    ("recipe", "options", "told"),
    [
        ("elr", ("--plan=cpu:99",), "--plan=cpu:99 needs so many devices: set JAX_NUM_CPU_DEVICES=99"),
        ("elr", ("--plan=cpu:0",), "--plan=cpu:0 is neither here, nor cpu:N or h100:N"),
        ("elr", ("--plan=mars",), "--plan=mars is neither here, nor cpu:N or h100:N, nor a TPU slice such as v5e:2x4"),
        ("distill", ("--plan=here",), "--plan says what one training takes, but here others come before it"),
        ("linear", ("--plan=here",), "--plan says what one training takes, but here others come before it"),
    ],
)
def test_what_cannot_be_planned_is_told(as_a_user, arrays, recipe, options, told):
    code, _, err = as_a_user(recipe, f"--dataset=npz:{arrays}", "--labels=web", *options)
    assert (code, told in err) == (1, True), err


def test_plans_decide_defaults_that_go_by_platform():
    class Chip:
        platform = "tpu"

    here = target.platform()
    with target.planned_for([Chip()]):
        assert (target.platform(), default_generator(), target.is_planned()) == ("tpu", "hash", True)
        with pytest.raises(ArgumentError, match="others come before it"):
            Trainer(MODEL, plain(losses.cross_entropy), optax.sgd(0.1), mesh=make_mesh(jax.devices()[:1])).fit(
                (np.zeros((256, F), np.float32), np.arange(256) % K), jax.random.key(0)
            )
    assert (target.platform(), target.is_planned()) == (here, False)


def test_a_plan_is_for_devices_with_memory_of_their_own(monkeypatch):
    monkeypatch.setattr(state, "memory", lambda: 1_000)
    with pytest.raises(ArgumentError, match="and there are 0: make"):
        costs(elr(), jax.devices()[:1])
    with target.planned_for(jax.devices()[:1]):
        assert costs(elr(), jax.devices()[:1]).parts["weights"] == WEIGHTS


def test_a_step_may_be_compiled_by_others_who_say_that_it_does_not_fit():
    def compiling(lowered):
        raise jax.errors.JaxRuntimeError(f"{said}: Ran out of memory, 23G exceed 15G.\nAllocations: ...")

    trainer = Trainer(MODEL, elr(), optax.sgd(0.1), batch_size=64, mesh=make_mesh(jax.devices()[:1]))
    said = "RESOURCE_EXHAUSTED"
    with pytest.raises(ArgumentError, match=r"into a \S+: Ran out of memory, 23G exceed 15G\. take more devices"):
        costs_of(trainer, SPLIT, compiling)
    said = "INTERNAL"
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        costs_of(trainer, SPLIT, compiling)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")
@pytest.mark.parametrize(("topology", "chips"), [("v5e:2x4", 8), ("v4:2x2x1", 4)])
def test_a_slice_that_is_not_here(topology, chips):
    found = costs(elr(), target.devices_of(topology))
    assert found.parts["examples"] == 4 * N * K // chips
    assert found.working > 0


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")
def test_what_does_not_fit_into_a_chip_is_told():
    network = build("mlp", (F,), K, widths=(45_000, 45_000))  # 8 GB, and as much of momentum
    optimizer, devices = optax.sgd(0.1, momentum=0.9), target.devices_of("v5e:2x2")
    with target.planned_for(devices), pytest.raises(ArgumentError, match=r"into a TPU v5 lite: .* exceeds available"):
        costs_of(Trainer(network, elr(), optimizer, batch_size=64, mesh=make_mesh(devices)), SPLIT)


def test_an_h100_that_is_not_here_has_three_quarters_of_its_memory():
    card = SimpleNamespace(device_kind="NVIDIA H100 80GB HBM3")
    mesh = SimpleNamespace(devices=np.array([card] * 8))
    with target.planned_for([card]):
        assert plan._limit(mesh) == 63_733_825_536


GPU_COMPILER = importlib.util.find_spec("jax_cuda12_plugin") is not None


@pytest.mark.skipif(not GPU_COMPILER, reason="needs jax-cuda12-plugin and -pjrt")
def test_gpus_that_are_not_here():
    found = costs(elr(), target.devices_of("h100:4"))
    assert found.parts["examples"] == 4 * N * K // 4
    assert found.working > 0


@pytest.mark.skipif(GPU_COMPILER, reason="the compiler is here")
def test_without_their_compiler_gpus_are_refused_with_what_to_install():
    with pytest.raises(ArgumentError, match=rf"pip install --no-deps jax-cuda12-plugin=={jax.__version__} jax-cuda12"):
        target.devices_of("h100:8")
