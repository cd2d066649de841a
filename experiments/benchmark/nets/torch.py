"""The twin of a net in PyTorch, in channels-last memory format."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
from jax import Array
from torch import nn

from experiments.benchmark import nets

ACTIVATIONS = {
    "relu": functools.partial(nn.ReLU, inplace=True),
    "relu6": functools.partial(nn.ReLU6, inplace=True),
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
}


class _Residual(nn.Module):
    def __init__(self, body: nn.Module, shortcut: nn.Module):
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x):
        return self.body(x) + self.shortcut(x)


class _Scale(nn.Module):
    def __init__(self, features: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))

    def forward(self, x):
        return x * self.weight[:, None, None]


def _of_pixels(f: Callable, x: torch.Tensor) -> torch.Tensor:
    """f of the channels of every pixel; permuting is free for an image in channels-last memory."""
    return f(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) if x.ndim == 4 else f(x)


class _LayerNorm(nn.LayerNorm):
    def forward(self, x):
        return _of_pixels(super().forward, x)


class _Linear(nn.Linear):
    def forward(self, x):
        return _of_pixels(super().forward, x)


class _GlobalAvgPool(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


class Model:
    """The net with its weights, a batch, and an optimizer: a whole training step."""

    def __init__(
        self,
        layers: nets.Layers,
        weights: nets.Weights,
        images: Array,
        labels: Array,
        *,
        learning_rate: float,
        momentum: float,
        compiled: bool = False,
    ):
        self.device = "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"
        self.layers, self.loaded = tuple(nets.weighted(layers)), []
        self._remaining = iter(zip(self.layers, weights, strict=True))
        place = {"device": self.device, "memory_format": torch.channels_last}
        self.images = _tensor(images.transpose(0, 3, 1, 2)).to(**place)
        self.labels = _tensor(labels).long().to(self.device)
        self.module = self._sequence(layers).to(**place)
        self.forward = torch.compile(self.module) if compiled else self.module
        self.optimizer = torch.optim.SGD(self.module.parameters(), learning_rate, momentum, fused=True)

    def step(self) -> torch.Tensor:
        """Forward, loss, backward and update; the loss before it."""
        self.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self.forward(self.images), self.labels)
        loss.backward()
        self.optimizer.step()
        if self.device == "cuda":
            torch.cuda.synchronize()
        return loss

    def first(self) -> tuple[np.ndarray, nets.Weights]:
        """A step; its loss and gradients, these in jcnn's names and layout."""
        loss, gradients = self.step(), []
        for layer, module in zip(self.layers, self.loaded, strict=True):
            named = {name: p.grad.cpu().numpy().copy() for name, p in module.named_parameters()}
            gradients.append(nets.channels_last(layer, named))
        return loss.detach().cpu().numpy(), gradients

    def _sequence(self, layers: nets.Layers) -> nn.Module:
        return nn.Sequential(*map(self._module, layers))

    def _module(self, layer: Any) -> nn.Module:
        match layer:
            case nets.Residual(body, shortcut):
                return _Residual(self._sequence(body), self._sequence(shortcut))
            case nets.Activation(name):
                return ACTIVATIONS[name]()
            case nets.MaxPool(size):
                return nn.MaxPool2d(size)
            case nets.AvgPool(size):
                return nn.AvgPool2d(size)
            case nets.GlobalAvgPool():
                return _GlobalAvgPool()
            case nets.Flatten():
                return nn.Flatten()
            case _:
                return self._load(layer)

    def _load(self, layer: Any) -> nn.Module:
        expected, weights = next(self._remaining)
        assert layer is expected
        tensors = {name: _tensor(value) for name, value in nets.channels_first(layer, weights).items()}
        weight = tensors["weight"]
        match layer:
            case nets.Conv(features, kernel, stride, padding, groups, bias):
                inputs = weight.shape[1] * groups
                module = nn.Conv2d(inputs, features, kernel, stride, padding, groups=groups, bias=bias)
            case nets.Dense(features, bias):
                module = _Linear(weight.shape[1], features, bias)
            case nets.BatchNorm(eps):
                module = nn.BatchNorm2d(len(weight), eps, 1 - nets.MOMENTUM)
            case nets.LayerNorm(eps):
                module = _LayerNorm(len(weight), eps)
            case nets.Scale():
                module = _Scale(len(weight))
            case _:
                raise TypeError(f"no such layer: {layer}")
        module = module.to(weight.dtype)
        module.load_state_dict(tensors, strict=not isinstance(layer, nets.BatchNorm))
        self.loaded.append(module)
        return module


def _tensor(a: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(a))
