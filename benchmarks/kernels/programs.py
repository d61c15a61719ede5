"""What a compiled program says of itself: memory on each chip, collectives, copies and cycles, loops counted out."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from jax.stages import Compiled

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16, "token": 0}
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .*)?\{$")
_OPERATION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = (.*?) ([a-z][\w\-]*)\((.*)$")
_ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\]")
_CALLED = re.compile(r"(?:body|condition|to_apply|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CONDITION = re.compile(r"condition=%?([\w.\-]+)")
_BOUND = re.compile(r" = s32\[\]\S* constant\((\d+)\)")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')


class Operation(NamedTuple):
    """One operation of a partitioned program.

    Attributes:
      kind: opcode, of an asynchronous one without its ``-done``.
      arrays: what it gives, text of type and dimensions.
      size: of that, bytes on a chip.
      times: how often it runs; a loop of unknown length counts once.
      cycles: the compiler's estimate for one run, where it has one.
    """

    kind: str
    arrays: str
    size: int
    times: int
    cycles: int


class Facts(NamedTuple):
    """What running a program takes on each chip.

    Attributes:
      arguments: bytes.
      temporary: bytes.
      peak: bytes of both and of what is given that does not lie in an argument's place.
      donated: bytes of what is given in the place of an argument.
      flops: the compiler's count, every loop's body once.
      cycles: the compiler's estimate, 0 where it makes none; without collectives and sorts.
      collectives: times and bytes by kind.
      copied: bytes that plain copies write.
      operations: all of them.
    """

    arguments: int
    temporary: int
    peak: int
    donated: int
    flops: float
    cycles: int
    collectives: dict[str, tuple[int, int]]
    copied: int
    operations: list[Operation]

    @property
    def received(self) -> int:
        """Bytes that collectives give each chip."""
        return sum(size for _, size in self.collectives.values())


def facts_of(compiled: Compiled) -> Facts:
    """What a compiled program's text and analyses say."""
    found = list(operations(compiled.as_text() or ""))
    memory: Any = compiled.memory_analysis()
    given = memory.output_size_in_bytes - memory.alias_size_in_bytes
    costs = compiled.cost_analysis()
    collectives = {}
    for kind in COLLECTIVES:
        ours = [o for o in found if o.kind == kind]
        if ours:
            collectives[kind] = sum(o.times for o in ours), sum(o.times * o.size for o in ours)
    return Facts(
        memory.argument_size_in_bytes,
        memory.temp_size_in_bytes,
        memory.argument_size_in_bytes + memory.temp_size_in_bytes + given,
        memory.alias_size_in_bytes,
        float((costs or {}).get("flops", math.nan)),
        sum(o.times * o.cycles for o in found),
        collectives,
        sum(o.times * o.size for o in found if o.kind == "copy"),
        found,
    )


def operations(text: str) -> Iterator[Operation]:
    """The operations of a program's text, those of loops and branches with them, those inside fusions left out."""
    bodies: dict[str, list[str]] = {}
    entry, lines = "", []
    for line in text.splitlines():
        if begins := _COMPUTATION.match(line):
            lines = bodies.setdefault(begins[2], [])
            entry = begins[2] if begins[1] else entry
        else:
            lines.append(line)

    def walk(name: str, times: int) -> Iterator[Operation]:
        for line in bodies.get(name, ()):
            if not (is_one := _OPERATION.match(line)):
                continue
            arrays, kind, rest = is_one.groups()
            cycles = _CYCLES.search(rest)
            if not kind.endswith("-start"):
                size = sum(map(_bytes, _ARRAY.findall(arrays)))
                yield Operation(kind.removesuffix("-done"), arrays, size, times, int(cycles[1]) if cycles else 0)
            if kind in ("while", "conditional", "call"):
                branches = _BRANCHES.search(rest)
                called = _CALLED.findall(rest) + (re.findall(r"[\w.\-]+", branches[1]) if branches else [])
                for other in called:
                    yield from walk(other, times * (trips(rest) if kind == "while" else 1))

    def trips(rest: str) -> int:
        """How often a loop runs: as the compiler says, or by the one bound in its condition."""
        if told := _TRIPS.search(rest):
            return int(told[1])
        condition = _CONDITION.search(rest)
        bounds = [b[1] for line in bodies[condition[1]] if (b := _BOUND.search(line))] if condition else []
        return int(bounds[0]) if len(bounds) == 1 else 1

    return walk(entry, 1)


def _bytes(array: tuple[str, str]) -> int:
    kind, dimensions = array
    digits = re.search(r"\d+", kind)
    bits = _BITS.get(kind, int(digits[0]) if digits else 0)
    return -(-bits * math.prod(int(d) for d in dimensions.split(",") if d) // 8)
