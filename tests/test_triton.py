"""Every Triton kernel compiles for the GPUs that the book names, without one being there.

The interpreter, which the other tests use, is more forgiving than the compiler: it has no types to disagree.
"""

import os
import subprocess
import sys

import pytest

from miue_lib.kernels import _triton

COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from miue_lib.kernels import histogram, kde, ksg

def check(kernel, constants, **arguments):
    signature = {name: arguments.get(name, "constexpr") for name in kernel.arg_names}
    for capability in (75, 90) if real == "fp32" else (90,):  # T4, H100
        built = compile(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", capability, 32))
        assert built.asm["cubin"], kernel
        assert built.metadata.shared <= 48 * 1024, kernel

for real in ("fp32", "fp64"):
    array = "*" + real
    check(histogram._kernel, {"BLOCK": 1024}, x=array, y=array, edges_x=array, edges_y=array, counts="*i32",
          n="i32", inner_x="i32", inner_y="i32")
    check(ksg._search_kernel, {"KPAD": 4, "BLOCK": 128}, x=array, y=array, ascending=array, index="*i64",
          eps=array, n="i32", length="i32", strips="i32", steps="i32", k="i32")
    check(ksg._count_kernel, {"BLOCK": 128}, values=array, order="*i64", eps=array, counts="*i64", n="i32", steps="i32")
    for d in (1, 2):
        check(kde._spread_kernel, {"D": d, "BLOCK": 1024}, points=array, table=array, n="i32", grid="i32", scale="fp32")
        check(kde._read_kernel, {"D": d, "BLOCK": 1024}, points=array, table=array, sums=array, n="i32", grid="i32",
              scale="fp32", at_zero="fp32", at_one="fp32")
"""


@pytest.mark.skipif(not _triton.available, reason="Triton is not installed")
def test_kernels_compile_for_real_gpus(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
