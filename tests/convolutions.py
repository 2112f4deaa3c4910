"""What the tests of our convolutions share."""

import torch


def results(convolution, x, amp, most=1):
    """The output, and the gradients for input and parameters of a random sum of the output.

    most: of the whole numbers that weigh the output.
    """
    x = x.clone().requires_grad_()
    convolution.zero_grad()
    with amp:
        y = convolution(x)
    generator = torch.Generator().manual_seed(1)
    (y.float() * small_integers(y.shape, most, generator)).sum().backward()
    return [y, x.grad, *(parameter.grad for parameter in convolution.parameters())]


def small_integers(shape, most=1, generator=None):
    """From -most to most: exact in bfloat16, and so are small sums of their products."""
    return torch.randint(-most, most + 1, shape, generator=generator).float()
