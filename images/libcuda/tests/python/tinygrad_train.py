"""tinygrad, unmodified: trains a small network with its compiled step and prints the loss of each."""

import numpy as np
from tinygrad import Tensor, TinyJit
from tinygrad.nn.optim import Adam

# From the third step on the kernels run as a graph.
STEPS = 4

random = np.random.default_rng(1)


def normal(*shape):
    return Tensor(random.standard_normal(shape).astype(np.float32) * 0.3)


first, second = normal(8, 16), normal(16, 4)
optimizer = Adam([first, second], lr=0.01)
inputs = normal(32, 8)
labels = Tensor(random.integers(0, 4, 32).astype(np.int32))


@TinyJit
def step():
    optimizer.zero_grad()
    outputs = inputs.matmul(first).relu().matmul(second)
    loss = outputs.sparse_categorical_crossentropy(labels).backward()
    optimizer.step()
    return loss.realize()


for _ in range(STEPS):
    print(f"{step().item():.7f}")
