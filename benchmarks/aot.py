"""Every method's programs, compiled ahead of time for chips that are not here: do they fit, what do they send.

  python benchmarks/aot.py --topology=v5e:2x4          # needs `pip install -e '.[tpu]'`, and no TPU
  python benchmarks/aot.py --topology=h100:8           # needs jax-cuda12-plugin and -pjrt, and no GPU
  python benchmarks/aot.py --topology=cpu:8 --only crf elr

The step of a streamed training, the passes of evaluation and export, and the refresh between epochs, behind one dense
layer: beside a large backbone a method costs what it costs here beside plain. Steps and passes are compiled for n
examples and for 2 n: bytes that grow are bytes that scale with the training set. Memory, copies and collectives are
exact; cycles are the compiler's estimates, without collectives, sorts and writes in place.
"""

from __future__ import annotations

import importlib.metadata
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from jax.sharding import Mesh

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.kernels.programs import Facts, facts_of
from nlx import losses
from nlx.arguments import ArgumentError
from nlx.crf.rbm import RBM
from nlx.data import Split
from nlx.data.prepare import several
from nlx.methods.can import Heads, can, paper_schedule
from nlx.methods.clean_net import clean_net
from nlx.methods.co_teaching import co_teaching
from nlx.methods.crf import annealed, crf, crf_analytic
from nlx.methods.divide_mix import divide_mix
from nlx.methods.elr import elr
from nlx.methods.icnm import icnm
from nlx.methods.method import Method
from nlx.methods.noise_layer import noise_layer
from nlx.methods.noise_types import noise_types, shared_trunk
from nlx.methods.plain import plain
from nlx.methods.self_learning import self_learning
from nlx.methods.sop import sop
from nlx.models import Model, build, mixed_pair, pair, prepared
from nlx.models.mixed_pair import VIEWS
from nlx.target import devices_of
from nlx.training.mesh import by_example, make_mesh, replicated
from nlx.training.stages import Stages
from nlx.training.state import REFRESH, key_for
from nlx.training.trainer import Trainer

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Sizes:
    """What is compiled for."""

    examples: int = 1_281_167
    """n, and 2 n after it."""
    classes: int = 1000
    """K."""
    inputs: int = 256
    """Numbers of an input."""
    width: int = 2048
    """Units of the dense layer, and so features."""
    batch: int = 128
    """Examples a chip."""
    members: int = 1280
    """Examples of a class that self-learning selects from."""
    words: int = 1000
    """Noisy labels of the CRF."""
    objects: int = 73
    """Its clean labels."""
    hidden: int = 200
    """Its hidden units."""
    chains: int = 50
    """Its chains."""
    sweeps: int = 100
    """Its sweeps."""


@dataclass(frozen=True)
class Options:
    """What to compile."""

    topology: str = "v5e:2x4"
    """A TPU slice, such as v5e:16x16 or v4:2x2x2, h100:8, or cpu:8 for so many forced devices."""
    only: tuple[str, ...] = ()
    """Names of methods; all by default."""
    sizes: Sizes = Sizes()
    record: bool = False
    """Whether to write the table to benchmarks/results, such as aot-v5e-2x4.md; with --only, rows of other methods stay
    as they are there."""


class Case(NamedTuple):
    """A method as it is compiled.

    Attributes:
      make: what makes the method.
      labels: of its noisy labels, the shape of one; () for a class.
      trusted: likewise of trusted labels; None for none.
      around: what makes its model of the network.
      grouped: whether examples are shuffled in as many groups as there are chips; the step alone is compiled then.
    """

    make: Callable[[], Method]
    labels: tuple[int, ...] = ()
    trusted: tuple[int, ...] | None = None
    around: Callable[[Model], Model] = lambda network: network
    grouped: bool = False


def cases(s: Sizes) -> dict[str, Case]:
    """Every method by its name."""
    k = s.classes
    schedule, alpha = paper_schedule(10_000), annealed(40.0, 5.0, 10_000)
    units = s.objects + s.hidden
    machine = RBM(jnp.zeros((units, s.words)), jnp.zeros(s.words), jnp.zeros(units))

    def field(**options: object) -> Case:
        sampled = {"hidden": s.hidden, "chains": s.chains, "sweeps": s.sweeps}
        given: dict[str, Any] = {"alpha": alpha, "auxiliary": machine, **sampled}
        return Case(lambda: crf(s.objects, s.words, **{**given, **options}), (s.words,), (s.objects,))

    def correcting(**options: object) -> Case:
        given: dict[str, Any] = {"refresh_after": lambda epochs: True, "members": s.members}
        return Case(lambda: self_learning(k, **{**given, **options}))

    heads = Heads(8, 64, 64, start="random")
    return {
        "plain": Case(lambda: plain(losses.cross_entropy, "plain")),
        "noise_layer": Case(lambda: noise_layer(k, learn_from=0)),
        "noise_types": Case(lambda: noise_types(k, np.full((k, k), 1 / k, np.float32), shared_trunk()), (), ()),
        "can": Case(lambda: can(k, temperature=schedule, rho=schedule, heads=heads)),
        "icnm": Case(icnm),
        "elr": Case(elr),
        "elr_in_groups": Case(elr, grouped=True),
        "sop": Case(sop),
        "sop_in_groups": Case(sop, grouped=True),
        "co_teaching": Case(lambda: co_teaching(lambda step: 0.3), around=pair),
        "clean_net": Case(lambda: clean_net(k, refresh_after=lambda epochs: True, members=s.members), (), ()),
        "divide_mix": Case(lambda: divide_mix(warm_up=1), around=of_two_views),
        "self_learning": correcting(),
        "self_learning_short": correcting(keep_scores=False),
        "crf_analytic": Case(lambda: crf_analytic(np.full((k, k), 1 / k, np.float32), alpha=alpha)),
        "crf_without_pairs": field(auxiliary=None, pairwise=False),
        "crf": field(generator="hash"),
        "crf_in_groups": field(generator="hash")._replace(grouped=True),
        "crf_threefry": field(generator="threefry"),
    }


def of_two_views(network: Model) -> Model:
    """A mixed pair that sees every input twice."""
    return prepared(mixed_pair(network), several(lambda inputs, key: inputs, VIEWS))


def mesh_of(topology: str) -> Mesh:
    """A mesh of devices that need not be here.

    Raises:
      ArgumentError: see :func:`nlx.target.devices_of`.
    """
    try:
        return make_mesh(devices_of(topology))
    except ArgumentError as error:
        raise ArgumentError(f"`topology`={error}") from error


class Programs:
    """What a training of n examples by one method runs, to be lowered for a mesh; nothing is allocated."""

    def __init__(self, case: Case, sizes: Sizes, n: int, mesh: Mesh):
        self._case, self._sizes, self._mesh = case, sizes, mesh
        wide, batch = bool(case.labels), sizes.batch * mesh.size
        classes = sizes.objects if wide else sizes.classes
        dense = build("mlp", (sizes.inputs,), classes, widths=(sizes.width,), dtype="bfloat16")
        model, optimizer = case.around(dense), optax.sgd(0.1, momentum=0.9)
        groups = mesh.size if case.grouped else 1
        trainer = Trainer(model, case.make(), optimizer, batch_size=batch, mesh=mesh, shuffle_groups=groups)
        state = trainer.abstract_state(Split(np.broadcast_to(np.float32(0), (n, sizes.inputs)), None, None))
        (program,) = trainer._stage_programs(Stages(1, n, batch))
        self.batch, self._passes, self.memory = self._batch(batch), trainer._passes, state.memory
        total = jax.ShapeDtypeStruct((), np.float32, sharding=replicated(mesh))
        names = jax.eval_shape(program.step, state, self.batch)[1]
        self.state: Any = state._replace(sums=jax.tree.map(lambda _: total, names))
        self.step: Any = program.one

    def lowered(self, name: str) -> jax.stages.Lowered:
        """``step``, ``posterior``, ``scores``, ``extract`` or ``refresh``."""
        seen, passes = self._batch(self._passes.batch), self._passes
        if name == "step":
            return self.step.lower(self.state, self.batch)
        if name == "posterior":
            return passes._posterior.lower(self.state, seen)
        if name == "scores":
            return passes._scores.lower(self.state, seen["inputs"])
        size = jax.tree.leaves(self.memory)[0].shape[0]
        width = jax.eval_shape(passes._eager_features, self.state, seen["inputs"]).shape[-1]
        features = self._rows(size, (width,), np.float32)
        if name == "extract":
            return passes._extract.lower(features, self.state, seen["inputs"], seen["index"], np.int32(size))
        key = jax.eval_shape(lambda state: key_for(state, REFRESH, 1), self.state)
        with jax.set_mesh(self._mesh):
            names = {"noisy_label", "trusted_label"} & seen.keys()
            labels = {name: self._rows(size, (), np.int32) for name in sorted(names)}
            refresh: Any = passes._refresh
            return refresh.lower(key, self.memory, features, labels)

    @property
    def names(self) -> tuple[str, ...]:
        """Of all that :meth:`lowered` knows here."""
        if self._case.grouped:
            return ("step",)
        between = ("extract", "refresh") if self._passes._refresh is not None else ()
        return ("step", "posterior", "scores", *between)

    def _batch(self, count: int) -> dict[str, jax.ShapeDtypeStruct]:
        case = self._case
        labels = self._rows(count, case.labels, np.uint8 if case.labels else np.int32)
        known = {} if case.trusted is None else {"trusted_label": self._rows(count, case.trusted, np.int32)}
        about = {"index": self._rows(count, (), np.int32), "noisy_label": labels, **known}
        return {"inputs": self._rows(count, (self._sizes.inputs,), np.float32), **about}

    def _rows(self, count: int, shape: tuple[int, ...], dtype: type) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((count, *shape), dtype, sharding=by_example(self._mesh))


GROWTH = ("arguments", "temporary", "received", "copied")


def row(case: Case, name: str, sizes: Sizes, mesh: Mesh) -> tuple[Facts, dict[str, float]]:
    """What one of a method's programs takes, and by how many bytes, over all chips, that grows with each example."""
    n = -(-sizes.examples // 2048) * 2048
    one = facts_of(Programs(case, sizes, n, mesh).lowered(name).compile())
    if name == "refresh":  # all of it does
        return one, {}
    two = facts_of(Programs(case, sizes, 2 * n, mesh).lowered(name).compile())
    return one, {what: (getattr(two, what) - getattr(one, what)) * mesh.size / n for what in GROWTH}


def line(method: str, program: str, facts: Facts, growth: dict[str, float], plain: Facts | None) -> str:
    """A row of the table, in Markdown."""
    gib = [f"{x / 2**30:.3f}" for x in (facts.arguments, facts.temporary, facts.peak, facts.donated)]
    cycles = [f"{facts.cycles / 1e6:.3g}", f"{(facts.cycles - plain.cycles) / 1e6:.3g}" if plain else ""]
    if not facts.cycles:  # only TPUs' compiler estimates them
        cycles = ["", ""]
    flops = "" if math.isnan(facts.flops) else f"{facts.flops / 1e9:.3g}"
    sent = "; ".join(f"{kind} {times}, {size / 1e6:.3g} MB" for kind, (times, size) in facts.collectives.items())
    grows = "; ".join(f"{what} {x:.4g}" for what, x in growth.items() if abs(x) >= 0.01)
    return f"| {' | '.join([method, program, *gib, flops, *cycles, sent, grows])} |"


HEAD = """| method | program | arguments | temporary | peak | donated | GFLOP | Mcycles | added | sent | grows by |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


def main() -> int:
    """Compile, and print and record what came of it."""
    options = tyro.cli(Options, description=__doc__, use_underscores=True)
    mesh, plain, found = mesh_of(options.topology), dict[str, Facts](), [HEAD]
    print(HEAD, flush=True)
    for method, case in cases(options.sizes).items():
        if options.only and method not in (*options.only, "plain"):
            continue
        for program in Programs(case, options.sizes, options.sizes.batch * mesh.size, mesh).names:
            facts, growth = row(case, program, options.sizes, mesh)
            if method == "plain":
                plain[program] = facts
            found.append(line(method, program, facts, growth, plain.get(program)))
            print(found[-1], flush=True)
    if options.record:
        path = RESULTS / f"aot-{options.topology.replace(':', '-')}.md"
        whole = record(options, mesh, found)
        path.write_text(kept(path.read_text(), whole) if options.only and path.exists() else whole)
    return 0


def kept(old: str, new: str) -> str:
    """A page on which the rows of a new one have taken their places.

    Raises:
      ArgumentError: it is of other sizes or versions.
    """
    about, _, before = old.partition(HEAD)
    now, _, after = new.partition(HEAD)
    if about != now:
        raise ArgumentError("`only` would mix rows of other sizes or versions into the page: record all methods")
    rows = {tuple(line.split(" | ")[:2]): line for line in f"{before}{after}".splitlines() if line}
    return f"{about}{HEAD}\n" + "".join(f"{line}\n" for line in rows.values())


def record(options: Options, mesh: Mesh, found: list[str]) -> str:
    """The results' page."""
    about = ", ".join(f"{name} {value}" for name, value in asdict(options.sizes).items())
    compiler = {"tpu": ["libtpu"], "gpu": ["jax-cuda12-pjrt"]}.get(mesh.devices.flat[0].platform, [])
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jax", "jaxlib", *compiler))
    return f"""# Compiled ahead of time for {options.topology}

`python benchmarks/aot.py --topology={options.topology} --record`: {mesh.size} chips, {packages}. Nothing ran on them.

Sizes: {about}.

Memory is GiB on a chip; *sent* are collectives, how often in one run of the program, and the MB that a chip has from
them; *added* are cycles less plain's; *grows by* are bytes over all chips for each training example more, where those
of the arguments are what a method keeps.

{chr(10).join(found)}
"""


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ArgumentError as error:
        sys.exit(f"error: {error}")
