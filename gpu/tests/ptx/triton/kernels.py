"""Kernels for `gpu/tests/triton.rs`. `python3 kernels.py DIRECTORY`, with Triton 3.9 and no GPU, writes the files beside this one."""
import os
import sys
from pathlib import Path

# Line information names paths of whoever compiles.
os.environ["TRITON_DISABLE_LINE_INFO"] = "1"
os.environ["TRITON_DEFAULT_FP_FUSION"] = "1"

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


@triton.jit
def add(a, b, c, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    tl.store(c + at, tl.load(a + at, mask=inside) + tl.load(b + at, mask=inside), mask=inside)


@triton.jit
def softmax(out, source, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0) * columns
    at = tl.arange(0, BLOCK)
    x = tl.load(source + row + at, mask=at < columns, other=-float("inf"))
    e = tl.exp(x - tl.max(x, axis=0))
    tl.store(out + row + at, e / tl.sum(e, axis=0), mask=at < columns)


@triton.jit
def layer_norm(out, source, weight, columns, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0) * columns
    at = tl.arange(0, BLOCK)
    inside = at < columns
    x = tl.load(source + row + at, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(x, axis=0) / columns
    centred = tl.where(inside, x - mean, 0.0)
    variance = tl.sum(centred * centred, axis=0) / columns
    y = centred * tl.rsqrt(variance + eps) * tl.load(weight + at, mask=inside, other=0.0)
    tl.store(out + row + at, y.to(tl.float16), mask=inside)


@triton.jit
def histogram(counts, source, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    tl.atomic_add(counts + (tl.load(source + at, mask=inside, other=0) & 15), 1, mask=inside)


@triton.jit
def running_sum(out, source, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(out + at, tl.cumsum(tl.load(source + at), axis=0))


KERNELS = [
    (add, {"a": "*fp32", "b": "*fp32", "c": "*fp32", "n": "i32"}, 1024, 4),
    (softmax, {"out": "*fp32", "source": "*fp32", "columns": "i32"}, 512, 4),
    (layer_norm, {"out": "*fp16", "source": "*fp16", "weight": "*fp32", "columns": "i32", "eps": "fp32"}, 256, 2),
    (histogram, {"counts": "*i32", "source": "*i32", "n": "i32"}, 256, 4),
    (running_sum, {"out": "*i32", "source": "*i32"}, 256, 4),
]

for function, signature, block, warps in KERNELS:
    source = ASTSource(function, {**signature, "BLOCK": "constexpr"}, {"BLOCK": block})
    compiled = triton.compile(source, target=GPUTarget("cuda", 75, 32), options={"num_warps": warps})
    name = function.fn.__name__
    Path(sys.argv[1], f"{name}.ptx").write_text(compiled.asm["ptx"])
    print(f"{name}: {32 * warps} threads, {compiled.metadata.shared} bytes of shared memory")
