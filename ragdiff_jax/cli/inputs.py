"""What the verbs that take pictures share: model and memory, photos, attributes, places of results."""

import argparse
import dataclasses
import functools
import gc
import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragdiff_jax.cli.errors import Report
from ragdiff_jax.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from jax.sharding import Mesh

    from ragdiff_jax.pipelines.generate import GarmentGenerator
    from ragdiff_jax.pipelines.retrieved import NthAlternative


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, metavar="DIR", help="model folder or finished workdir (default: shipped)")
    parser.add_argument("--memory", type=Path, metavar="DIR", help="memory of flat-lays (default: the shipped one)")


def add_photo_arguments(parser: argparse.ArgumentParser) -> None:
    """What is said of the photos and of their retrieval: the same for `generate` and `retrieve`."""
    parser.add_argument("photos", nargs="+", type=Path, metavar="PHOTO", help="picture files, or folders of them")
    add_model_arguments(parser)
    parser.add_argument(
        "--attributes",
        action="append",
        metavar="WHAT",
        help="FILE (JSONL: a line a photo), and for what it doesn't say: predict, or unknown; may stand twice "
        "(default: predict with a model that can, else unknown)",
    )
    silhouette = parser.add_mutually_exclusive_group()
    silhouette.add_argument(
        "--landmark",
        type=_landmark,
        metavar="I|FILE",
        help="use the I-th neighbour's silhouette, from 0, or a mask of yours, white on black "
        "(default: what the model makes of the neighbours)",
    )
    silhouette.add_argument(
        "--alternative",
        type=at_least(0),
        metavar="I",
        help="use another of the silhouettes that the garment may have, from 0, the one that is used anyway, to 4 at "
        "most; panels and --json show them (where the model considers more than its neighbours they differ more)",
    )


def _landmark(text: str) -> int | Path:
    return int(text) if text.lstrip("-").isdecimal() else Path(text)


def read_landmark(arguments: argparse.Namespace) -> "int | NthAlternative | np.ndarray | None":
    """`--landmark` or `--alternative` as the generator takes it: a mask file as a bool array. Raises UserError."""
    landmark = arguments.landmark
    if arguments.alternative is not None:
        from ragdiff_jax.pipelines.retrieved import NthAlternative

        return NthAlternative(arguments.alternative)
    if not isinstance(landmark, Path):
        return landmark
    from ragdiff_jax.data.images import load_mask
    from ragdiff_jax.pipelines.doubts import fit_landmark

    mask = load_mask(landmark)
    fit_landmark(mask, max(mask.shape), str(landmark))  # an empty one is told with its name
    return mask


def split_attributes(given: Sequence[str] | None) -> tuple[Path | None, str | None]:
    """(file, `predict` or `unknown` for what the file doesn't say, None where not told) of `--attributes`."""
    words = [text for text in given or () if text in ("predict", "unknown")]
    files = [text for text in given or () if text not in words]
    if len(words) > 1 or len(files) > 1:
        raise UserError(f"--attributes {' '.join(given)}: give one file, and one of predict and unknown")
    return (Path(files[0]) if files else None), (words[0] if words else None)


def will_predict(generator: "GarmentGenerator", word: str | None, model: Path) -> bool:
    """Whether attributes are predicted. Raises UserError if that was asked of a model that can't."""
    if word == "predict":
        from ragdiff_jax.weights.model_folder import check_predicts

        check_predicts(generator.predicts, model)
    return generator.predicts and word != "unknown"


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object a line on stdout, and nothing else there")


def at_least(least: int | float, kind: type = int) -> Callable[[str], int | float]:
    """An argparse type: a number of at least `least`, finite; an int fits into 64 bits, as seeds must."""
    return functools.partial(_number, least, kind)


def _number(least: int | float, kind: type, text: str) -> int | float:
    try:
        value = kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not least <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be at least {least} and finite")
    if kind is int and value >= 2**63:
        raise argparse.ArgumentTypeError(f"{text} must be below 2^63")
    return value


def shipped(name: str) -> Path:
    """A folder of the package's assets: `tiny` (model) or `memory`."""
    return Path(str(resources.files("ragdiff_jax"))) / "assets" / name


def model_folder(path: Path | None) -> Path:
    """The model folder that `--model` means: itself, or a workdir's `model/`. Raises UserError if neither."""
    if path is None:
        return shipped("tiny")
    for folder in (path, path / "model"):
        if (folder / "model.json").is_file():
            return folder
    if not path.is_dir():
        raise UserError(f"{path}: no such model folder; check the path")
    if (path / "checkpoints").is_dir():
        raise UserError(f"{path}: this run has written no model/ yet; run `ragdiff train` on it to its end")
    raise UserError(f"{path}: has no model.json; name a model folder or a finished workdir")


def trace_undisturbed() -> None:
    """Python looks for dead cycles every 700 new objects: an eighth of the time to trace a step, whose objects live."""
    gc.set_threshold(100_000, 20, 20)


def remember_compilations(report: Report) -> None:
    """Keeps XLA's programs between runs: compiling takes longer than running. JAX's own variable wins."""
    from ragdiff_jax.parallel import enable_compilation_cache

    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    try:
        enable_compilation_cache()
    except UserError as error:
        report.note(f"ragdiff: every run compiles anew: {error}")


def load_generator(arguments: argparse.Namespace, report: Report, **options) -> "GarmentGenerator":
    """The generator of `--model` and `--memory`."""
    remember_compilations(report)
    from ragdiff_jax.pipelines.generate import GarmentGenerator

    return GarmentGenerator.from_folders(
        model_folder(arguments.model), arguments.memory or shipped("memory"), **options
    )


def shared_mesh(devices: int) -> "Mesh | None":
    """A mesh of so many of this machine's devices; None for one. Raises UserError where there are fewer."""
    if devices == 1:
        return None
    import jax

    from ragdiff_jax.parallel import make_mesh

    there = jax.local_devices()
    if devices > len(there):
        raise UserError(f"--devices {devices}: JAX sees {len(there)} here ({there[0].device_kind})")
    return make_mesh(devices=there[:devices])


def listed_photos(paths: Sequence[Path], out: Path | None = None) -> list[Path]:
    """The photos, and in the place of a folder its pictures, sorted; a folder without any is told when it is read.

    Raises UserError for a folder that cannot be read, and for results that would lie among the photos of one.
    """
    from ragdiff_jax.data.images import picture_files

    photos: list[Path] = []
    for path in paths:
        if not os.path.isdir(path):  # Path.is_dir raises for a name that is too long; reading it will say so
            photos.append(path)
            continue
        if out is not None and out.resolve() == path.resolve():
            raise UserError(f"{out}: holds the photos, and the next call would take results for some; choose another")
        photos += picture_files(path) or [path]
    return photos


def prepare_out(folder: Path) -> None:
    """Makes the folder and tries to write there, before any work. Raises UserError."""
    probe = folder / f".ragdiff-{secrets.token_hex(6)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise UserError(f"{folder}: cannot be written to ({error.strerror}); choose another --out") from error


def result_stems(photos: Sequence[Path], endings: Sequence[str], out: Path) -> list[str]:
    """A stem for each photo's results in `out`, so that none overwrites another's.

    Photos of one name are told apart by -2, -3, ...; case is ignored, since some file systems do.
    Raises UserError if a result would overwrite one of the photos.
    """
    sources = {photo.resolve() for photo in photos}
    taken: set[str] = set()
    last: dict[str, int] = {}  # the number that a stem had last: thousands of photos may be called front.jpg
    stems = []
    for photo in photos:
        number, stem = last.get(photo.stem.lower(), 1), photo.stem
        while any((stem + ending).lower() in taken for ending in endings):
            number += 1
            stem = f"{photo.stem}-{number}"
        last[photo.stem.lower()] = number
        taken.update((stem + ending).lower() for ending in endings)
        for ending in endings:
            if (out / (stem + ending)).resolve() in sources:
                raise UserError(f"{out / (stem + ending)}: a result would overwrite this photo; choose another --out")
        stems.append(stem)
    return stems


@dataclasses.dataclass(frozen=True)
class Description:
    """What is said of a photo."""

    attributes: Mapping[str, str]
    caption: str


@dataclasses.dataclass(frozen=True)
class Described:
    """Descriptions of photos by file name, and the mistakes in their lines by file name."""

    records: Mapping[str, Description]
    mistakes: Mapping[str, UserError]

    def of(self, photo: Path) -> Description:
        """What is said of the photo. Raises the mistake in its line."""
        if photo.name in self.mistakes:
            raise self.mistakes[photo.name]
        return self.records.get(photo.name, Description({}, ""))


def read_descriptions(path: Path | None, photos: Iterable[Path], kind: str = "photos") -> Described:
    """Reads a file of `--attributes`, so that a bad value costs only the photo that it describes.

    `kind`: which of a pair the pictures are where the file is that of pairs, `photos` or `flats`.

    Raises UserError for a file that cannot be read, a line that is no description, and a file that describes
    none of the photos (their names don't match).
    """
    if path is None:
        return Described({}, {})
    from ragdiff_jax.data.attributes import read_attributes

    try:
        described = Described({name: _description(record) for name, record in read_attributes(path).items()}, {})
    except UserError as error:
        described = _by_line(path, error)
    described = Described(_of_kind(described.records, kind), _of_kind(described.mistakes, kind))
    names = [photo.name for photo in photos]
    if not any(name in described.records or name in described.mistakes for name in names):
        raise UserError(f"{path}: describes none of the pictures; 'image' must be a file name such as {names[0]!r}")
    return described


def _of_kind(said: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """By the pictures' names also where the file is that of pairs (`photos/NAME`, `flats/NAME`)."""
    start = f"{kind}/"
    return {**{name.removeprefix(start): value for name, value in said.items() if name.startswith(start)}, **said}


def _description(record: Mapping) -> Description:
    return Description(record["attributes"], record.get("caption") or "")


def _by_line(path: Path, error: UserError) -> Described:
    """Reads a file with a mistake by line; raises `error` if it is not one picture's attributes."""
    from ragdiff_jax.data.attributes import check_attributes

    records, mistakes = {}, {}
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
            if not line.strip():
                continue
            record = json.loads(line)
            name, caption = record["image"], record.get("caption")
            if not isinstance(name, str) or name in records or name in mistakes or not isinstance(caption, str | None):
                raise error
            try:
                checked = check_attributes(record.get("attributes", {}), f"{path} line {number}")
                records[name] = _description(record | {"attributes": checked})
            except UserError as mistake:
                mistakes[name] = mistake
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        raise error from None
    if not mistakes:
        raise error
    return Described(records, mistakes)


@dataclasses.dataclass(frozen=True)
class Photo:
    """A photo that was read: where from, the stem of its results, its pixels, what is said of it."""

    path: Path
    stem: str
    image: "np.ndarray"
    description: Description


def read_photos(
    photos: Sequence[Path], stems: Sequence[str], described: Described, report: Report, *, chunk: int
) -> Iterator[list[Photo]]:
    """Chunks of at most `chunk` readable photos; of an unreadable one only the error is reported."""
    from ragdiff_jax.data.images import load_image

    ready: list[Photo] = []
    for path, stem in zip(photos, stems, strict=True):
        try:
            ready.append(Photo(path, stem, load_image(path), described.of(path)))
        except UserError as error:
            report.error(error, str(path))
        if len(ready) == chunk:
            yield ready
            ready = []
    if ready:
        yield ready
