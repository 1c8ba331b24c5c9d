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
from miue_lib.kernels import crop_flip, histogram, kde, ksg, noise_step, similarity

def check(kernel, constants, warps=4, **arguments):
    signature = {name: arguments.get(name, "constexpr") for name in kernel.arg_names}
    for capability in {"fp32": (75, 90), "fp16": (75,)}.get(real, (90,)):  # T4, H100
        built = compile(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", capability, 32),
                        options={"num_warps": warps})
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

real = "fp32"  # both capabilities
for kind in ("u8", "i16", "i32", "i64", "fp32"):
    for transposed in (False, True):
        constants = {"C": 3, "H": 32, "W": 32, "NOISY": kind == "fp32", "TRANSPOSED": transposed, "BLOCK": 1024}
        check(crop_flip._kernel, constants, source="*" + kind, images="*u8", target="*" + kind, dy="*i64", dx="*i64",
              flip="*u8", pad="i32", stride_n="i32", stride_c="i32", stride_h="i32", stride_w="i32")
for kind in ("fp32", "fp16", "bf16"):
    check(noise_step._kernel, {"BLOCK": 1024}, delta="*fp32", images="*u8", gradient="*" + kind, size="i32",
          step="fp32", epsilon="fp32")
for half, precision in (("fp32", "ieee"), ("fp16", "tf32"), ("bf16", "tf32")):
    real = half  # float16 is what a T4 computes in, bfloat16 what an H100 does
    batch = {"g": "*" + half, "scale": "*fp32", "first": "*i64", "last": "*i64", "centred": "*fp32", "squares": "*fp32",
             "n": "i32", "d": "i32", "width": "i32", "sharpness": "fp32"}
    sizes = {"DISTANCES": True, "PRECISION": precision, "BLOCK": similarity._BLOCK, "CHUNK": similarity._CHUNK}
    batch["warps"] = similarity._WARPS
    check(similarity._forward_kernel, sizes | {"SELF": False}, **batch, own="*fp32", other="*fp32", spread="*fp32")
    check(similarity._backward_kernel, sizes, **batch, beta="*fp32", gamma="*fp32", alpha="*fp32", turn="*fp32",
          move="*fp32")
"""


@pytest.mark.skipif(not _triton.available, reason="Triton is not installed")
def test_kernels_compile_for_real_gpus(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
