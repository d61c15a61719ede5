"""Every method's step as compilers see it: nothing of the size of the training set moves, and it lowers everywhere."""

import importlib.util
from dataclasses import replace

import jax
import pytest

from benchmarks.aot import Programs, Sizes, cases, mesh_of
from benchmarks.kernels.programs import facts_of
from nlx.training.mesh import make_mesh

SIZES = Sizes(2**22, 130, 8, 16, 4, 8, 20, 5, 4, 30, 2)
TOPOLOGIES = ["cpu:8", *(["v5e:2x4"] if importlib.util.find_spec("libtpu") else [])]


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("method", ["elr", "sop", "self_learning", "crf"])
def test_a_step_moves_rows_of_the_batch_and_no_more(method, topology):
    mesh = mesh_of(topology)
    programs = Programs(cases(SIZES)[method], SIZES, SIZES.examples, mesh)
    facts = facts_of(programs.lowered("step").compile())
    kept = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(programs.memory)) / mesh.size
    assert facts.donated >= kept
    assert max(facts.temporary, facts.copied, facts.received) < kept / 4


@pytest.mark.parametrize("method", cases(SIZES))
def test_a_step_lowers_for_every_platform(method):
    sizes = replace(SIZES, examples=64)
    programs = Programs(cases(sizes)[method], sizes, 64, make_mesh(jax.devices()[:1]))
    platforms = ("tpu", "cuda", "rocm", "cpu")
    assert jax.export.export(programs.step, platforms=platforms)(programs.state, programs.batch).platforms == platforms
