"""Models in PyTorch for tests/test_sources_torch.py, which runs a copy of this file as the module ``nets``."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

TEXT = "no function"


class Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.down = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + self.down(x))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(Block(8, 8, 1), Block(8, 16, 2))
        self.fc = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer1(self.pool(nn.functional.silu(self.stem(x))))
        return self.fc(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1))


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, padding=1)
        self.b = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.drop = nn.Dropout(0.5)

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        return self.drop(self.a(left) + self.b(right)), self.a(left)


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y.relu() if y.sum() > -1e9 else y


class Wide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(5, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def net() -> nn.Module:
    torch.manual_seed(0)
    return Net()


def a_dict() -> dict[str, int]:
    return {}


def fails() -> nn.Module:
    raise ValueError("the weights are gone\nand so is the second line")


def needs_more(size: int) -> nn.Module:
    return Net() if size else Two()


def quits() -> nn.Module:
    raise SystemExit(3)


def save() -> None:
    model, image = net(), torch.randn(1, 3, 32, 32)
    torch.export.save(torch.export.export(model, (image,)), "training.pt2")
    model.eval()
    torch.export.save(torch.export.export(model, (image,)), "net.pt2")
    free: Any = torch.export.Dim.AUTO
    larger = torch.randn(1, 3, 64, 64)
    shapes = {"x": {2: free, 3: free}}
    torch.export.save(torch.export.export(model, (larger,), dynamic_shapes=shapes), "open.pt2")
    torch.save(model, "pickle.pt2")
    ones = torch.ones(1, 3, 32, 32)
    np.save("ones.npy", model(ones).detach().numpy())
