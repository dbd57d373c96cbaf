"""LPIPS against the same networks in torch, on random weights in the public files' layout."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ragdiff_jax.models.lpips import lpips, shapes

torch = pytest.importorskip("torch")
_VGG = [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512]


def trunk(net):
    """(torchvision's `features` as far as they are used, the tapped ReLUs' places), written out from its layer list."""
    nn = torch.nn
    if net == "alex":
        layers = [
            nn.Conv2d(3, 64, 11, 4, 2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
        ]
        layers += [nn.MaxPool2d(3, 2), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 256, 3, padding=1)]
        layers += [nn.ReLU(), nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()]
        return nn.Sequential(*layers), (1, 4, 7, 9, 11)
    layers, inputs = [], 3
    for width in _VGG:
        if width == "M":
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
            inputs = width
    return nn.Sequential(*layers), (3, 8, 15, 22, 29)


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_is_torchs(net):
    rng = np.random.default_rng(0)
    params = {}
    for name, shape in shapes(net).items():
        scale = np.sqrt(2 / np.prod(shape[1:])) if name.startswith("features") and len(shape) == 4 else 0.1
        params[name] = np.float32(scale * rng.standard_normal(shape))
        if name.startswith("lin"):
            params[name] = np.abs(params[name])
    a, b = np.float32(rng.uniform(-1, 1, (2, 2, 67, 70, 3)))
    arrays = {name: jnp.asarray(value) for name, value in params.items()}
    ours, theirs = jnp.asarray(a), jnp.asarray(b)
    features, taps = trunk(net)
    own = {name.removeprefix("features."): torch.tensor(value) for name, value in params.items() if "features" in name}
    features.load_state_dict(own)  # strict: every name and shape is torchvision's
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    truth = 0
    with torch.no_grad():
        x, y = (((torch.tensor(p) - shift) / scale).permute(0, 3, 1, 2) for p in (a, b))
        for place, layer in enumerate(features):
            x, y = layer(x), layer(y)
            if place in taps:
                units = [z / (z.pow(2).sum(1, keepdim=True).sqrt() + 1e-10) for z in (x, y)]
                weight = torch.tensor(params[f"lin{taps.index(place)}.model.1.weight"])
                truth = truth + torch.conv2d((units[0] - units[1]) ** 2, weight).mean((1, 2, 3))
    run = jax.jit(functools.partial(lpips, net))
    assert np.asarray(run(arrays, ours, theirs)) == pytest.approx(truth.numpy(), rel=1e-4)
    assert np.asarray(run(arrays, ours, ours)) == pytest.approx(0, abs=1e-7)
    with pytest.raises(ValueError, match="a side"):
        lpips(net, arrays, ours[:, :15, :15], theirs[:, :15, :15])
