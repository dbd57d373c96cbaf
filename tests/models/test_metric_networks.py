"""FID's Inception and DISTS against the same networks in torch, on random weights in the public files' layout."""

import jax
import numpy as np
import pytest
from quick import quick_jit

from ragdiff_jax.models import dists, inception

torch = pytest.importorskip("torch")
F = torch.nn.functional


def random_params(shapes, seed=0):
    """He normal kernels and moments that let the signal through."""
    rng, found = np.random.default_rng(seed), {}
    for name, shape in shapes.items():
        if len(shape) == 4 and name not in ("alpha", "beta"):
            value = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        elif name.endswith("running_var"):
            value = rng.uniform(0.5, 2, shape)
        elif name.endswith("bn.weight") or name in ("alpha", "beta"):
            value = rng.uniform(0.2, 1.5, shape)
        else:
            value = 0.1 * rng.standard_normal(shape)
        found[name] = np.float32(value)
    return found


class TorchInception:
    """Written from the public definition: torchvision's blocks with pytorch-fid's changed pools."""

    def __init__(self, params):
        self.p = {name: torch.tensor(value) for name, value in params.items()}

    def conv(self, x, name, stride=1, padding=0):
        p = self.p
        x = F.conv2d(x, p[f"{name}.conv.weight"], stride=stride, padding=padding)
        moments = (p[f"{name}.bn.{end}"] for end in ("running_mean", "running_var", "weight", "bias"))
        return F.relu(F.batch_norm(x, *moments, eps=0.001))

    def pooled(self, x, block):
        return self.conv(F.avg_pool2d(x, 3, 1, 1, count_include_pad=False), f"{block}.branch_pool")

    def a(self, x, m):
        five = self.conv(self.conv(x, f"{m}.branch5x5_1"), f"{m}.branch5x5_2", padding=2)
        three = self.conv(self.conv(x, f"{m}.branch3x3dbl_1"), f"{m}.branch3x3dbl_2", padding=1)
        three = self.conv(three, f"{m}.branch3x3dbl_3", padding=1)
        return torch.cat([self.conv(x, f"{m}.branch1x1"), five, three, self.pooled(x, m)], 1)

    def b(self, x, m):
        three = self.conv(self.conv(x, f"{m}.branch3x3dbl_1"), f"{m}.branch3x3dbl_2", padding=1)
        parts = [self.conv(x, f"{m}.branch3x3", 2), self.conv(three, f"{m}.branch3x3dbl_3", 2), F.max_pool2d(x, 3, 2)]
        return torch.cat(parts, 1)

    def c(self, x, m):
        one = self.conv(self.conv(x, f"{m}.branch7x7_1"), f"{m}.branch7x7_2", padding=(0, 3))
        one = self.conv(one, f"{m}.branch7x7_3", padding=(3, 0))
        two = self.conv(x, f"{m}.branch7x7dbl_1")
        for number, padding in ((2, (3, 0)), (3, (0, 3)), (4, (3, 0)), (5, (0, 3))):
            two = self.conv(two, f"{m}.branch7x7dbl_{number}", padding=padding)
        return torch.cat([self.conv(x, f"{m}.branch1x1"), one, two, self.pooled(x, m)], 1)

    def d(self, x, m):
        one = self.conv(self.conv(x, f"{m}.branch3x3_1"), f"{m}.branch3x3_2", 2)
        two = self.conv(self.conv(x, f"{m}.branch7x7x3_1"), f"{m}.branch7x7x3_2", padding=(0, 3))
        two = self.conv(self.conv(two, f"{m}.branch7x7x3_3", padding=(3, 0)), f"{m}.branch7x7x3_4", 2)
        return torch.cat([one, two, F.max_pool2d(x, 3, 2)], 1)

    def e(self, x, m, last):
        def both(x, name):
            return [self.conv(x, f"{name}a", padding=(0, 1)), self.conv(x, f"{name}b", padding=(1, 0))]

        one = both(self.conv(x, f"{m}.branch3x3_1"), f"{m}.branch3x3_2")
        two = self.conv(self.conv(x, f"{m}.branch3x3dbl_1"), f"{m}.branch3x3dbl_2", padding=1)
        pool = self.conv(F.max_pool2d(x, 3, 1, 1), f"{m}.branch_pool") if last else self.pooled(x, m)
        return torch.cat([self.conv(x, f"{m}.branch1x1"), *one, *both(two, f"{m}.branch3x3dbl_3"), pool], 1)

    def __call__(self, x):
        x = self.conv(self.conv(x, "Conv2d_1a_3x3", 2), "Conv2d_2a_3x3")
        x = F.max_pool2d(self.conv(x, "Conv2d_2b_3x3", padding=1), 3, 2)
        x = F.max_pool2d(self.conv(self.conv(x, "Conv2d_3b_1x1"), "Conv2d_4a_3x3"), 3, 2)
        for name in "bcd":
            x = self.a(x, f"Mixed_5{name}")
        x = self.b(x, "Mixed_6a")
        for name in "bcde":
            x = self.c(x, f"Mixed_6{name}")
        x = self.d(x, "Mixed_7a")
        return self.e(self.e(x, "Mixed_7b", False), "Mixed_7c", True).mean((2, 3))


def test_inception_is_torchs():
    params = random_params(inception.shapes())
    pixels = np.float32(np.random.default_rng(1).uniform(-1, 1, (2, 87, 91, 3)))
    with torch.no_grad():
        truth = TorchInception(params)(torch.tensor(pixels).permute(0, 3, 1, 2)).numpy()
    found = np.asarray(quick_jit(inception.inception)(params, pixels))
    assert found.shape == (2, inception.DIMENSIONS) and truth.std() > 1e-3
    assert np.linalg.norm(found - truth) / np.linalg.norm(truth) < 1e-4


def torch_dists(params, a, b):
    p = {name: torch.tensor(value) for name, value in params.items()}
    hann = torch.tensor(np.hanning(5)[1:-1], dtype=torch.float32)
    window = torch.outer(hann, hann) / hann.sum() ** 2
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def stages(x):
        found, x = [x], (x - mean) / std
        for stage in ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)):
            if stage[0]:
                kernel = window[None, None].repeat(x.shape[1], 1, 1, 1)
                x = (F.conv2d(x**2, kernel, stride=2, padding=1, groups=x.shape[1]) + 1e-12).sqrt()
            for index in stage:
                x = F.relu(F.conv2d(x, p[f"features.{index}.weight"], p[f"features.{index}.bias"], padding=1))
            found.append(x)
        return found

    total, at = 0, 0
    for x, y in zip(stages(a), stages(b), strict=True):
        part, axes = slice(at, at + x.shape[1]), (2, 3)
        mx, my = x.mean(axes), y.mean(axes)
        vx, vy = x.var(axes, correction=0), y.var(axes, correction=0)
        cov = (x * y).mean(axes) - mx * my
        total = total + ((2 * mx * my + 1e-6) / (mx**2 + my**2 + 1e-6)) @ p["alpha"][0, part, 0, 0]
        total = total + ((2 * cov + 1e-6) / (vx + vy + 1e-6)) @ p["beta"][0, part, 0, 0]
        at += x.shape[1]
    return 1 - total / (p["alpha"].sum() + p["beta"].sum())


def test_dists_is_torchs():
    params = random_params(dists.shapes())
    rng = np.random.default_rng(1)
    a = np.float32(rng.uniform(0, 1, (3, 37, 34, 3)))
    b = np.float32(np.clip(a + rng.normal(0, 1, a.shape) * np.array([0.05, 0.2, 1])[:, None, None, None], 0, 1))
    with torch.no_grad():
        truth = torch_dists(params, *(torch.tensor(x).permute(0, 3, 1, 2) for x in (a, b))).numpy()
    run = quick_jit(dists.dists)
    assert np.asarray(run(params, a, b)) == pytest.approx(truth, abs=1e-4)
    assert truth[0] < truth[1] < truth[2]
    assert np.asarray(run(params, a, a)) == pytest.approx(0, abs=1e-5)
    with pytest.raises(ValueError, match="a side"):
        jax.eval_shape(dists.dists, params, a[:, :15], b[:, :15])
