"""tinygrad, unmodified: trains the smallest network that has a hidden layer, and prints the loss of each step. It has few kernels,
for a guest that is emulated: making them is most of its work."""

import numpy as np
from tinygrad import Tensor, TinyJit
from tinygrad.nn.optim import SGD

# From the third step on the kernels run as a graph.
STEPS = 4

random = np.random.default_rng(1)


def normal(*shape):
    return Tensor(random.standard_normal(shape).astype(np.float32) * 0.3)


first, second = normal(8, 16), normal(16, 4)
optimizer = SGD([first, second], lr=0.5)
inputs, targets = normal(32, 8), normal(32, 4)


@TinyJit
def step():
    optimizer.zero_grad()
    outputs = inputs.matmul(first).relu().matmul(second)
    loss = (outputs - targets).square().mean().backward()
    optimizer.step()
    return loss.realize()


for _ in range(STEPS):
    print(f"{step().item():.7f}")
