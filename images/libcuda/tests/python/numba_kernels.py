"""numba-cuda, unmodified: kernels that it compiles to PTX, linked through the driver, against numpy."""

import warnings

warnings.simplefilter("ignore")

import numpy as np
from numba import cuda, float32

TILE = 16


@cuda.jit
def add(a, b, c):
    i = cuda.grid(1)
    if i < c.size:
        c[i] = a[i] + b[i]


@cuda.jit
def matmul(a, b, c):
    a_tile = cuda.shared.array((TILE, TILE), float32)
    b_tile = cuda.shared.array((TILE, TILE), float32)
    x, y = cuda.grid(2)
    tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
    total = float32(0)
    for tile in range(a.shape[1] // TILE):
        a_tile[tx, ty] = a[x, ty + tile * TILE]
        b_tile[tx, ty] = b[tx + tile * TILE, y]
        cuda.syncthreads()
        for k in range(TILE):
            total += a_tile[tx, k] * b_tile[k, ty]
        cuda.syncthreads()
    c[x, y] = total


@cuda.jit
def histogram(data, bins):
    i = cuda.grid(1)
    if i < data.size:
        cuda.atomic.add(bins, data[i], 1)


def main():
    random = np.random.default_rng(1)
    a, b = random.standard_normal((2, 1000)).astype(np.float32)
    c = np.zeros_like(a)
    add[8, 128](a, b, c)
    assert (c == a + b).all()

    a, b = random.standard_normal((2, 64, 64)).astype(np.float32)
    c = np.zeros_like(a)
    matmul[(4, 4), (TILE, TILE)](a, b, c)
    assert np.allclose(c, a @ b, atol=1e-4)

    data = random.integers(0, 16, 5000)
    bins = np.zeros(16, np.int32)
    histogram[40, 128](data, bins)
    assert (bins == np.bincount(data, minlength=16)).all()

    stream = cuda.stream()
    start, end = cuda.event(), cuda.event()
    values = cuda.to_device(np.arange(1000, dtype=np.float32), stream=stream)
    start.record(stream)
    add[8, 128, stream](values, values, values)
    end.record(stream)
    end.synchronize()
    assert (values.copy_to_host(stream=stream) == 2 * np.arange(1000)).all()
    assert cuda.event_elapsed_time(start, end) > 0
    print("numba is right")


main()
