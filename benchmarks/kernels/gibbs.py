"""Persistent block Gibbs at the paper's sizes: 1000 noisy labels, 73 clean ones, 200 hidden units, 50 chains.

The limit is what the two matrix products of a sweep cost with a threshold that takes no random bits: a sampler cannot
be faster. The best peer is torch with operands in bfloat16 and 16-bit thresholds.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.kernels.timing import Row, against, interleaved, to_numpy, torch_device
from nlx.samplers import gibbs

NOISY, UNITS, CHAINS = 1000, 73 + 200, 50
EXAMPLES, SWEEPS = 10, 40


def measure(rounds: int) -> list[Row]:
    """Ours with both generators against torch and against the limit; NumPy and thrml for information."""
    rng = np.random.default_rng(0)
    coupling = np.asarray(jnp.asarray(0.1 * rng.normal(size=(UNITS, NOISY)), jnp.bfloat16).astype(jnp.float32))
    y_bias = (rng.normal(size=(EXAMPLES, NOISY)) - 1).astype(np.float32)
    z_bias = (rng.normal(size=(EXAMPLES, UNITS)) - 1).astype(np.float32)
    state = gibbs.init(jax.random.key(0), EXAMPLES, CHAINS, NOISY, UNITS)
    u, b, a = map(jnp.asarray, (coupling, y_bias, z_bias))
    start = np.unpackbits(np.asarray(state.packed), axis=-1, count=UNITS).astype(np.float32)

    def ours(generator: Any) -> Callable[[], Any]:
        run = jax.jit(lambda key, state: gibbs.step(key, state, u, b, a, SWEEPS, generator=generator))
        return lambda: run(jax.random.key(1), state)

    sides: dict[str, Callable[[], Any]] = {
        "threefry": ours("threefry"),
        "hash": ours("hash"),
        "limit": _limit(u, jnp.asarray(start.reshape(-1, UNITS), jnp.bfloat16)),
        "numpy": _numpy(coupling, y_bias, z_bias, start),
    }
    if device := torch_device():
        sides["torch"] = _torch(coupling, y_bias, z_bias, start, device)
    _check({name: call for name, call in sides.items() if name != "limit"})
    t = interleaved(sides, rounds)
    about = f"{EXAMPLES} x {CHAINS} chains, {SWEEPS} sweeps"
    rows = [
        against(f"Gibbs, {about}: ours / matrix products alone", t, "limit", 1 / 0.75, "threefry"),
        against(f"Gibbs, {about}: ours with the hash / matrix products alone", t, "limit", 1 / 0.90, "hash"),
        against(f"Gibbs, {about}: ours / numpy", t, "numpy", None, "threefry"),
    ]
    if "torch" in t:
        rows.insert(0, against(f"Gibbs, {about}: ours / torch (bfloat16, 16 bits)", t, "torch", 0.5, "threefry"))
    if jax.default_backend() == "gpu":
        rows += [_milliseconds(u, b[:1], a[:1], rounds, generator) for generator in ("threefry", "hash")]
    if importlib.util.find_spec("thrml"):
        rows.append(_thrml(t["threefry"], rounds))
    return rows


def _milliseconds(u: jax.Array, b: jax.Array, a: jax.Array, rounds: int, generator: Any) -> Row:
    """A step's sweeps for a whole batch, for a limit in milliseconds that was set for an H100."""
    examples, sweeps = 128, 100
    state = gibbs.init(jax.random.key(0), examples, CHAINS, NOISY, UNITS)
    y_bias, z_bias = (jnp.broadcast_to(x, (examples, x.shape[1])) for x in (b, a))
    run = jax.jit(lambda key, state: gibbs.step(key, state, u, y_bias, z_bias, sweeps, generator=generator))
    alone = _limit(u, jnp.zeros((examples * CHAINS, UNITS), jnp.bfloat16), sweeps)
    t = interleaved({"ours": lambda: run(jax.random.key(1), state), "limit": alone}, rounds)
    row = against(f"Gibbs, {examples} x {CHAINS} chains, {sweeps} sweeps, {generator}: milliseconds", t, "limit", 6.0)
    return {**row, "ratio": 1e3 * t["ours"]}


def _limit(u: jax.Array, z: jax.Array, sweeps: int = SWEEPS) -> Callable[[], Any]:
    both = u.astype(jnp.bfloat16), u.T.astype(jnp.bfloat16)

    @jax.jit
    def run(z: jax.Array, u: jax.Array, u_t: jax.Array) -> jax.Array:
        def sweep(_: Any, z: jax.Array) -> jax.Array:
            y = (jax.lax.dot(z, u, preferred_element_type=jnp.float32) > 0).astype(jnp.bfloat16)
            return (jax.lax.dot(y, u_t, preferred_element_type=jnp.float32) > 0).astype(jnp.bfloat16)

        return jax.lax.fori_loop(0, sweeps, sweep, z)

    return lambda: run(z, *both)


def _numpy(coupling: np.ndarray, y_bias: np.ndarray, z_bias: np.ndarray, start: np.ndarray) -> Callable[[], Any]:
    """Float32 products, 16-bit thresholds; returns y's last conditional probabilities."""
    rng = np.random.default_rng(1)
    rows = EXAMPLES * CHAINS
    b, a = np.repeat(y_bias, CHAINS, 0), np.repeat(z_bias, CHAINS, 0)

    def draw(logits: np.ndarray) -> np.ndarray:
        uniform = np.frombuffer(rng.bytes(2 * logits.size), np.uint16).reshape(logits.shape)
        np.exp(np.negative(logits, out=logits), out=logits)
        logits += 1
        logits *= uniform + np.float32(0.5)
        return (logits < 2**16).astype(np.float32)

    def run() -> np.ndarray:
        z = start.reshape(rows, UNITS)
        for _ in range(SWEEPS):
            logits = z @ coupling + b
            z = draw(draw(logits.copy()) @ coupling.T + a)
        return (1 / (1 + np.exp(-logits))).reshape(EXAMPLES, CHAINS, NOISY).mean(1)

    return run


def _torch(
    coupling: np.ndarray, y_bias: np.ndarray, z_bias: np.ndarray, start: np.ndarray, device: str
) -> Callable[[], Any]:
    """Operands in bfloat16, 16-bit thresholds; the faster of plain and compiled draws."""
    import torch

    u = torch.tensor(coupling, device=device).bfloat16()
    u_t = u.T.contiguous()
    b, a = (torch.from_numpy(np.repeat(x, CHAINS, 0)).to(device) for x in (y_bias, z_bias))
    first = torch.from_numpy(start.reshape(-1, UNITS)).to(device).bfloat16()

    def draw(product: torch.Tensor, bias: torch.Tensor, random: torch.Tensor) -> torch.Tensor:
        uniform = (random.to(torch.int32) + 2**15).float()
        return ((uniform + 0.5) * (1 + torch.exp(-(product.float() + bias))) < 2**16).bfloat16()

    def bits(shape: torch.Size) -> torch.Tensor:
        # One 64-bit random number holds four thresholds.
        count = -(-shape.numel() // 4)
        return (
            torch.empty(count, dtype=torch.int64, device=device)
            .random_(-(2**63), None)
            .view(torch.int16)[: shape.numel()]
            .view(shape)
        )

    def sampler(draw: Callable[..., torch.Tensor]) -> Callable[[], Any]:
        def run() -> torch.Tensor:
            with torch.no_grad():
                z = first
                for _ in range(SWEEPS):
                    product = z @ u
                    z = draw(draw(product, b, bits(b.shape)) @ u_t, a, bits(a.shape))
                probs = torch.sigmoid(product.float() + b)
            return probs.reshape(EXAMPLES, CHAINS, NOISY).mean(1)

        return run

    plain = sampler(draw)
    try:
        compiled = sampler(torch.compile(draw, dynamic=False))
        t = interleaved({"plain": plain, "compiled": compiled}, 5)
    except Exception:  # no C++ compiler here
        return plain
    return compiled if t["compiled"] < t["plain"] else plain


def _check(sides: dict[str, Callable[[], Any]]) -> None:
    """All samplers must agree on p(y given x), in z-scores of a difference between means over chains."""
    results = {name: call() for name, call in sides.items()}
    info = results["threefry"][1]
    means = {
        name: to_numpy(result[1].y_mean if isinstance(result, tuple) else result).astype(np.float64)
        for name, result in results.items()
    }
    spread = np.sqrt(np.asarray(info.y_mean * (1 - info.y_mean), np.float64))
    for name, mean in means.items():
        # y's draws spread more than its conditional probabilities, so this is a bound.
        z = np.abs(mean - means["threefry"]) / (np.maximum(spread, 0.05) * np.sqrt(2 / CHAINS))
        if z.max() > 6 or (z**2).mean() > 1.3:
            raise AssertionError(f"{name} disagrees: largest z {z.max():.1f}, mean square {(z**2).mean():.2f}")


def _thrml(ours: float, rounds: int) -> Row:
    """thrml walks a graph edge by edge: a few sweeps of a few chains side by side, scaled up."""
    from thrml import Block, SpinNode, sample_states
    from thrml.block_sampling import SamplingSchedule
    from thrml.models import IsingEBM, IsingSamplingProgram

    y, z = [SpinNode() for _ in range(NOISY)], [SpinNode() for _ in range(UNITS)]
    edges: list[Any] = [(i, j) for i in y for j in z]
    rng = np.random.default_rng(0)
    model = IsingEBM(
        [*y, *z],
        edges,
        jnp.zeros(NOISY + UNITS),
        jnp.asarray(0.02 * rng.normal(size=len(edges)), jnp.float32),
        jnp.ones(()),
    )
    program = IsingSamplingProgram(model, [Block(y), Block(z)], clamped_blocks=[])
    start = [jnp.zeros(NOISY, bool), jnp.zeros(UNITS, bool)]
    schedule = SamplingSchedule(n_warmup=2, n_samples=1, steps_per_sample=1)
    run = jax.jit(jax.vmap(lambda key: sample_states(key, program, schedule, start, [], [Block(z)])))
    keys = jax.random.split(jax.random.key(0), 10)
    seconds = interleaved({"thrml": lambda: run(keys)}, min(rounds, 5))["thrml"]
    t = {"ours": ours, "thrml": seconds / (3 * len(keys)) * SWEEPS * EXAMPLES * CHAINS}
    return against("Gibbs: ours / thrml (scaled from 3 sweeps of 10 chains)", t, "thrml", None)
