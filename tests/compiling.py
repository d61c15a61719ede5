"""How tests compile: nearly all their time goes into programs that run once or twice."""

import os
from importlib.metadata import version
from pathlib import Path

# LLVM may leave programs as they are, in one piece: to split small ones costs more than to compile their parts at once
# saves. jaxlib 0.10 has an older code generator as well, which takes half as long.
QUICK = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
if version("jaxlib").startswith("0.10."):
    QUICK += " --xla_cpu_use_fusion_emitters=false"

# What was compiled once is loaded, also by later runs of the tests. Files are not written whole, so each worker of
# pytest-xdist has its own.
KEPT = Path(__file__).resolve().parents[1] / ".pytest_cache" / "compiled" / os.environ.get("PYTEST_XDIST_WORKER", "one")
