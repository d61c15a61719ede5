"""Every method's step as compilers see it: nothing of the size of the training set moves, and it lowers everywhere."""

import importlib.util
from dataclasses import replace

import jax
import pytest

from benchmarks.aot import HEAD, Programs, Sizes, cases, kept, mesh_of
from benchmarks.kernels.programs import facts_of
from nlx.arguments import ArgumentError
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


def test_rows_that_are_compiled_anew_take_their_places():
    old = f"about\n\n{HEAD}\n| plain | step | 1 |\n| elr | step | 2 |\n| sop | step | 3 |\n"
    new = f"about\n\n{HEAD}\n| plain | step | 1 |\n| elr | step | 4 |\n| elr_in_groups | step | 5 |\n"
    assert kept(old, new).splitlines()[4:] == [
        "| plain | step | 1 |",
        "| elr | step | 4 |",
        "| sop | step | 3 |",
        "| elr_in_groups | step | 5 |",
    ]
    assert kept(old, new).startswith(f"about\n\n{HEAD}\n")
    with pytest.raises(ArgumentError, match="`only` would mix rows of other sizes or versions"):
        kept(old, f"more {new}")
