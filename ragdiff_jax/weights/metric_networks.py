"""Networks that metrics are measured with: from their public files into a folder, and from there to arrays.

A folder holds `config.json` (the kind, and each file's name and SHA-256) and the tensors by the public names. Of files
that are published under a hash it is said whether they are those.
"""

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ragdiff_jax.errors import UserError
from ragdiff_jax.models import dists, inception, lpips
from ragdiff_jax.retrieval.storage import sha256
from ragdiff_jax.weights.checkpoints import open_tensors
from ragdiff_jax.weights.importing import appearing, unwrapped
from ragdiff_jax.weights.names import require_floats
from ragdiff_jax.weights.safetensors_io import open_folder, read_json
from ragdiff_jax.weights.sources import whole
from ragdiff_jax.weights.streaming import write_part

CLASS = "MetricNetwork"


@dataclasses.dataclass(frozen=True)
class File:
    """A public file: its name, and the SHA-256 that it has, or its beginning where its name says no more."""

    name: str
    sha256: str


@dataclasses.dataclass(frozen=True)
class MetricKind:
    """A kind: its tensors, and the public files that hold them, in the order in which they are asked for."""

    shapes: Callable[[], Mapping[str, tuple[int, ...]]]
    files: tuple[File, ...]


_ALEX, _VGG = File("alexnet-owt-7be5be79.pth", "7be5be79"), File("vgg16-397923af.pth", "397923af")  # torchvision's
METRIC_KINDS: Mapping[str, MetricKind] = {
    "inception": MetricKind(inception.shapes, (File("pt_inception-2015-12-05-6726825d.pth", "6726825d"),)),
    "lpips-alex": MetricKind(
        lambda: lpips.shapes("alex"),
        (_ALEX, File("lpips 0.1, alex.pth", "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0")),
    ),
    "lpips-vgg": MetricKind(
        lambda: lpips.shapes("vgg"),
        (_VGG, File("lpips 0.1, vgg.pth", "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868")),
    ),
    "dists": MetricKind(
        dists.shapes,
        (_VGG, File("DISTS_pytorch's weights.pt", "f5e65c96230b7f6ca995691647d482237e4cab8a50c5c4a5784f219ef0748218")),
    ),
}


@dataclasses.dataclass(frozen=True)
class MetricNetwork:
    """A network of `kind`: float32 tensors by their public names, and the SHA-256 over them."""

    kind: str
    params: dict[str, np.ndarray]
    sha256: str


@dataclasses.dataclass(frozen=True)
class ImportedMetric:
    """What was written; `public`: of each file whether it is the published one."""

    folder: Path
    parameters: int
    bytes: int
    public: dict[str, bool]


def import_metric_network(
    kind: str,
    files: Sequence[str | Path],
    to: str | Path,
    progress: Callable[[int], Any] = lambda count: contextlib.nullcontext(lambda: None),
) -> ImportedMetric:
    """Reads `files` (safetensors, or torch's files of any age) and writes the folder `to`, not there yet.

    What the files hold beside the network's tensors, such as a classifier, is left out. Raises `UserError` for too few
    files, damaged ones, and one for all tensors that are missing or of another shape.
    """
    what, files = METRIC_KINDS[kind], [Path(file) for file in files]
    if len(files) != len(what.files):
        names = ", then with --with ".join(file.name for file in what.files)
        raise UserError(f"--kind {kind}: takes {len(what.files)} file(s) ({names}), got {len(files)}")
    sources = [unwrapped(open_tensors(file)) for file in files]
    where, shapes = " and ".join(map(str, files)), dict(what.shapes())
    holders = {name: next((source for source in sources if name in source.shapes), None) for name in shapes}
    _check(kind, shapes, {name: source and source.shapes[name] for name, source in holders.items()}, where)
    for source in sources:
        require_floats(source.dtypes, [name for name in shapes if holders[name] is source], where)
    hashes = [sha256(file) for file in files]
    public = {
        file.name: digest.startswith(known.sha256)
        for file, digest, known in zip(files, hashes, what.files, strict=True)
    }
    config = {
        "_class_name": CLASS,
        "kind": kind,
        "files": [{"name": file.name, "sha256": digest} for file, digest in zip(files, hashes, strict=True)],
    }
    with progress(len(shapes)) as step, appearing(Path(to)) as folder:

        def arrays():
            for name, shape in shapes.items():
                yield np.asarray(holders[name].read(name, whole(shape)), np.float32)
                step()

        write_part(folder, config, {name: ("float32", shape) for name, shape in shapes.items()}, arrays())
    count = sum(int(np.prod(shape)) for shape in shapes.values())
    return ImportedMetric(folder=Path(to), parameters=count, bytes=4 * count, public=public)


def is_metric_network(folder: Path) -> bool:
    """Whether `import_metric_network` wrote it."""
    return (folder / "config.json").is_file() and read_json(folder / "config.json").get("_class_name") == CLASS


def load_metric_network(folder: Path) -> MetricNetwork:
    """What `import_metric_network` wrote. Raises `UserError` for another or a damaged folder."""
    kind = read_json(folder / "config.json").get("kind")
    if kind not in METRIC_KINDS:
        raise UserError(f"{folder}: is of kind {kind!r}, none of {', '.join(METRIC_KINDS)}; import it again")
    source, shapes = open_folder(folder), METRIC_KINDS[kind].shapes()
    _check(kind, shapes, {name: source.shapes.get(name) for name in shapes}, str(folder))
    params, digest = {}, hashlib.sha256()
    for name, shape in shapes.items():
        params[name] = np.asarray(source.read(name, whole(shape)), np.float32)
        digest.update(name.encode() + params[name].tobytes())
    return MetricNetwork(kind=kind, params=params, sha256=digest.hexdigest())


def _check(kind: str, wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, Any], where: str) -> None:
    missing = [name for name in wanted if found[name] is None]
    wrong = [
        f"{name} {list(found[name])} instead of {list(shape)}"
        for name, shape in wanted.items()
        if found[name] is not None and tuple(found[name]) != tuple(shape)
    ]
    lists = [("missing", missing), ("wrong shape", wrong)]
    if missing or wrong:
        listed = "; ".join(f"{what} ({len(names)}): {', '.join(names[:10])}" for what, names in lists if names)
        raise UserError(f"{where}: no {kind}: {listed}; name the files of that network")
