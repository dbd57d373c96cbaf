"""Others' checkpoints in: `import_weights` makes a part folder of one, tensor by tensor.

The result has the names, layout and config that diffusers and transformers use, so that `load_part` reads it into
sharded arrays and the rest of the world reads it too.
"""

import contextlib
import dataclasses
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ragdiff_jax.errors import UserError
from ragdiff_jax.weights.checkpoints import TOWERS, fetch, find_config, open_tensors
from ragdiff_jax.weights.f_theta import f_theta_view
from ragdiff_jax.weights.ip_adapter import NewProjection, ip_adapter_view
from ragdiff_jax.weights.kinds import KINDS, Kind
from ragdiff_jax.weights.names import FLOATS
from ragdiff_jax.weights.open_clip import is_open_clip, open_clip_view
from ragdiff_jax.weights.safetensors_io import reusing_memory
from ragdiff_jax.weights.sources import Source, renamed, whole
from ragdiff_jax.weights.streaming import cast, disk_shapes, match, size_of, write_part

# What training scripts put before every name, one after the other.
WRAPPINGS = ("state_dict.", "model.", "module.")


@dataclasses.dataclass(frozen=True)
class Imported:
    """What was written: the part folder, its config object, how many parameters and bytes, the file's dtypes.

    `started_anew` names the tensors that the checkpoint had no fitting ones for.
    """

    folder: Path
    config: Any
    parameters: int
    bytes: int
    dtypes: tuple[str, ...]
    started_anew: tuple[str, ...] = ()


def import_weights(
    source: str | Path,
    kind: str,
    to: str | Path,
    *,
    config: str | None = None,
    revision: str | None = None,
    subfolder: str | None = None,
    file: str | None = None,
    variant: str | None = None,
    dtype: str | None = None,
    embed_dim: int | None = None,
    progress: Callable[[int], Any] = lambda count: contextlib.nullcontext(lambda: None),
) -> Imported:
    """Reads the checkpoint at `source` as one of `kind` and writes the part folder `to`, which must not be there yet.

    Args:
      source: a folder in the layout of diffusers, transformers or OpenCLIP; a `.safetensors` or torch file; or a hub
        id with `revision`.
      kind: one of `kinds.KINDS`.
      config: a config.json or the name of a published architecture; None is the config beside the weights.
      subfolder, file: of `source`.
      variant: such as `fp16`, in the names of the files.
      dtype: of the written tensors; None keeps each one's.
      embed_dim: kind ip-adapter: the width of the embedding that will go in, where it is not IP-Adapter's 1280; then
        the first projection starts anew.
      progress: given the number of tensors, a context manager of a function to call after each.

    Raises `UserError`: one for all missing, surplus and mis-shaped tensors, with nothing written; and for files that
    are damaged, hold code, or don't fit on the disk. `to` is complete or absent.
    """
    if kind not in KINDS:
        raise UserError(f"--kind {kind}: there is no such kind; choose one of {', '.join(KINDS)}")
    if dtype is not None and dtype not in FLOATS:
        raise UserError(f"--dtype {dtype}: choose one of {', '.join(sorted(FLOATS))}")
    if embed_dim is not None and kind != "ip-adapter":
        raise UserError(f"--embed-dim goes with --kind ip-adapter, not {kind}")
    path = fetch(str(source), revision=revision, subfolder=subfolder, file=file, variant=variant)
    what = KINDS[kind]
    found, _ = find_config(path, what, config)
    tensors, found = adapt(open_tensors(path, variant), what, found, str(path), embed_dim)
    wanted = disk_shapes(what.abstract(found))
    names = match(tensors, wanted, str(path))
    entries = {name: (dtype or tensors.dtypes[names[name]], shape) for name, shape in wanted.items()}

    with progress(len(entries)) as step, appearing(Path(to)) as folder:

        def arrays() -> Iterator[np.ndarray]:
            with reusing_memory() as scratch:
                for name, (kept, shape) in entries.items():
                    yield cast(tensors.read(names[name], whole(shape)), kept, name)
                    scratch.give_back()
                    step()

        write_part(folder, found.to_dict(), entries, arrays())
    return Imported(
        folder=Path(to),
        config=found,
        parameters=sum(int(np.prod(shape, dtype=np.int64)) for shape in wanted.values()),
        bytes=size_of(entries),
        dtypes=tuple(sorted({kept for kept, _ in entries.values()})),
        started_anew=tuple(tensors.new) if isinstance(tensors, NewProjection) else (),
    )


def adapt(source: Source, kind: Kind, config: Any, where: str, embed_dim: int | None = None) -> tuple[Source, Any]:
    """`source` under the names that `kind` has, and the config, which `embed_dim` may change."""
    source = unwrapped(source)
    if kind.name in TOWERS:
        if is_open_clip(source):
            source = open_clip_view(source, TOWERS[kind.name])
        else:
            source = _one_tower(source, TOWERS[kind.name], config.with_projection)
    elif kind.name == "f-theta":
        source = f_theta_view(source)
    elif kind.name == "ip-adapter" and any(name.startswith(("ip_adapter.", "image_proj.")) for name in source.shapes):
        source = ip_adapter_view(source, config.unet, where)
        if embed_dim is not None and embed_dim != config.adapter.embed_dim:
            match(source, disk_shapes(kind.abstract(config)), where)  # before its first projection is replaced
            config = dataclasses.replace(config, adapter=dataclasses.replace(config.adapter, embed_dim=embed_dim))
            source = NewProjection(source, embed_dim)
    return source, config


def unwrapped(source: Source) -> Source:
    """Without the prefixes of WRAPPINGS that all names have."""
    for wrapping in WRAPPINGS:
        if source.shapes and all(name.startswith(wrapping) for name in source.shapes):
            source = renamed(source, {name.removeprefix(wrapping): name for name in source.shapes})
    return source


def _one_tower(source: Source, tower: str, projected: bool) -> Source:
    """A whole CLIP model's tensors without those of its other tower and of its temperature."""
    own, others = ("text_model.", "text_projection."), ("vision_model.", "visual_projection.")
    if tower == "vision":
        own, others = others, own
    if not any(name.startswith(others) or name == "logit_scale" for name in source.shapes):
        return source
    left = [name for name in source.shapes if not name.startswith(others) and name != "logit_scale"]
    return renamed(source, {name: name for name in left if projected or not name.startswith(own[1])})


@contextlib.contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A folder to write into that takes the place of `folder` at the end, whole; after an error nothing is left.

    Raises `UserError` when `folder` is there already or cannot be made.
    """
    if folder.exists():
        raise UserError(f"{folder}: is there already; choose another --to")
    partial = folder.parent / f".{folder.name}.{secrets.token_hex(4)}.partial"
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another --to") from error
    try:
        yield partial
        os.rename(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
