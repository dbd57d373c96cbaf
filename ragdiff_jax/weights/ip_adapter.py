"""IP-Adapter-plus as our EP-Adapter: its Resampler, and its keys and values at each cross-attention, site by site.

The published file has `image_proj.*`, the Resampler under the names that ours has, and `ip_adapter.N.to_k_ip.weight`,
where N counts diffusers' attention processors: self- and cross-attentions in turn (so N is odd), the blocks in the
order down, up, mid, which is not the one of the computation.
"""

import numpy as np

from ragdiff_jax.errors import UserError
from ragdiff_jax.models.unet_config import UNetConfig
from ragdiff_jax.weights.sources import Index, Piece, Source, View

_PROJECTION = "resampler.proj_in.weight"


def processor_order(unet: UNetConfig) -> list[tuple[str, int]]:
    """(site, depth) of every transformer stack, in the order of diffusers' attention processors."""
    sites = [(site, depth) for site, depth, *_ in unet.sites()]
    return [s for s in sites if not s[0].startswith("mid")] + [s for s in sites if s[0].startswith("mid")]


def ip_adapter_view(source: Source, unet: UNetConfig, where: str) -> View:
    """The published tensors under the names of our EP-Adapter's file; what does not belong stays, to be reported.

    Raises `UserError` for an IP-Adapter that is not a plus one.
    """
    if "image_proj.latents" not in source.shapes and any(name.startswith("image_proj.") for name in source.shapes):
        raise UserError(f"{where}: an IP-Adapter without a Resampler; take one of the 'plus' ones")
    pieces: dict[str, Piece | tuple[Piece, ...]] = {}
    used = set()
    number = 1
    for site, depth in processor_order(unet):
        module = site.replace("/", "_").replace("attentions_", "attentions.")
        numbers = range(number, number + 2 * depth, 2)
        number += 2 * depth
        for ours, theirs in (("to_k", "to_k_ip"), ("to_v", "to_v_ip")):
            names = [f"ip_adapter.{n}.{theirs}.weight" for n in numbers]
            shapes = {source.shapes.get(name) for name in names}
            if None not in shapes and len(shapes) == 1:  # else it is missing, and its layers are not expected
                pieces[f"{module}.{ours}"] = tuple(Piece(name, transposed=True) for name in names)
                used.update(names)
    for name in source.shapes:
        if name not in used:
            new = f"resampler.{name.removeprefix('image_proj.')}" if name.startswith("image_proj.") else name
            pieces[new] = Piece(name)
    return View(source, pieces)


class NewProjection:
    """A source whose `resampler.proj_in` starts anew, for an embedding that IP-Adapter never saw; the rest stays.

    Uniform within 1 / sqrt(embed_dim), as torch starts a linear layer; the same for the same seed.
    """

    new = (_PROJECTION,)

    def __init__(self, source: Source, embed_dim: int, seed: int = 0):
        self._source = source
        width = source.shapes[_PROJECTION][0]
        bound = embed_dim**-0.5
        draw = np.random.default_rng(seed).uniform(-bound, bound, (width, embed_dim))
        self._weight = draw.astype(np.dtype(source.dtypes[_PROJECTION]))
        self.shapes = dict(source.shapes) | {_PROJECTION: (width, embed_dim)}
        self.dtypes = dict(source.dtypes)

    def read(self, name: str, index: Index) -> np.ndarray:
        """See `Source`."""
        return self._weight[index] if name == _PROJECTION else self._source.read(name, index)
