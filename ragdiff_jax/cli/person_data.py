"""`ragdiff data people`, `dresscode` and `vitonhd`: people drawn, or from folders that you have, for Fashion-RAG."""

import argparse
from pathlib import Path

from ragdiff_jax.cli.errors import Report
from ragdiff_jax.cli.inputs import add_json, at_least, prepare_out

_DRESSCODE = """Dress Code as records of person, garment, label map, keypoints and caption.

Nothing is downloaded; request the data from its authors and name the folder:

  SOURCE/fine_captions.json, coarse_captions.json         of Dress Code Multimodal (or --no-captions)
  SOURCE/{upper_body,lower_body,dresses}/
    train_pairs.txt  test_pairs_paired.txt  test_pairs_unpaired.txt
    images/048392_0.jpg  images/048392_1.jpg  keypoints/048392_2.json  label_maps/048392_4.png

  ragdiff data dresscode --source DressCode --out data --height 512
  ragdiff data dresscode --source DressCode --out data --categories dresses --splits test --no-captions

All missing files are listed before anything is written; an interrupted run leaves nothing half-written.
"""

_VITONHD = """VITON-HD as records of person, garment, label map and keypoints, and captions where given.

Nothing is downloaded; name the unpacked folder:

  SOURCE/train_pairs.txt  test_pairs.txt
  SOURCE/{train,test}/
    image/00001_00.jpg  cloth/00001_00.jpg
    image-parse-v3/00001_00.png             (or image-parse/)
    openpose_json/00001_00_keypoints.json   (or openpose-json/)

  ragdiff data vitonhd --source VITON-HD --out data --captions VITON-HD/captions.json --height 512
  ragdiff data vitonhd --source VITON-HD --out data --exclude vitonhd_duplicate_filenames.json

VITON-HD repeats people and has some of its test people in training. --exclude takes TryOffDiff's published list of
them; --drop-same-pictures finds them by comparing the pictures.
All missing files are listed before anything is written; an interrupted run leaves nothing half-written.
"""

_PEOPLE = """Draw people who wear the garments of `ragdiff data synth`, as records of person, garment, label map,
keypoints and caption. The same --seed has the same garments, number by number.

  ragdiff data people --out data/people --count 4096 --size 128
"""

_SPLITS = ("train", "test", "test_unpaired")


def add_person_verbs(verbs, formatter) -> None:
    """Adds the three verbs to those of `ragdiff data`."""
    people = verbs.add_parser(
        "people",
        help="draw people in garments: person, garment, label map, keypoints, caption",
        description=_PEOPLE,
        formatter_class=formatter,
    )
    people.add_argument("--out", required=True, type=Path, metavar="DIR", help="data directory, made if missing")
    people.add_argument(
        "--count", type=at_least(2), default=4096, help="people, in structure twins (default %(default)s)"
    )
    people.add_argument("--size", type=at_least(16), default=128, help="pixels a side (default %(default)s)")
    people.add_argument("--seed", type=at_least(0), default=0, help="which garments (default %(default)s)")
    people.add_argument("--processes", type=at_least(1), default=1, help="drawing processes (default %(default)s)")
    add_json(people)
    people.set_defaults(run=run_people)
    dresscode = verbs.add_parser(
        "dresscode",
        help="Dress Code's folder as records of person and garment",
        description=_DRESSCODE,
        formatter_class=formatter,
    )
    _add_common(dresscode)
    dresscode.add_argument(
        "--categories",
        type=_names,
        default=("upper_body", "lower_body", "dresses"),
        metavar="A,B",
        help="of upper_body,lower_body,dresses (default all)",
    )
    dresscode.add_argument(
        "--garments",
        choices=("images", "cleaned"),
        default="images",
        help="the public pictures, or cleaned_inshop_imgs/ (default %(default)s)",
    )
    dresscode.add_argument(
        "--no-captions", action="store_true", help="read no captions, and keep the garments that have none"
    )
    dresscode.set_defaults(run=run_dresscode)
    vitonhd = verbs.add_parser(
        "vitonhd",
        help="VITON-HD's folder as records of person and garment",
        description=_VITONHD,
        formatter_class=formatter,
    )
    _add_common(vitonhd)
    vitonhd.add_argument(
        "--captions", type=Path, metavar="FILE", help="noun chunks by garment; garments without are left out"
    )
    vitonhd.set_defaults(run=run_vitonhd)


def _add_common(parser) -> None:
    parser.add_argument("--source", required=True, type=Path, metavar="DIR", help="the data set's own folder")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="data directory, made if missing")
    parser.add_argument(
        "--splits", type=_names, default=_SPLITS, metavar="A,B", help="of train,test,test_unpaired (default all)"
    )
    parser.add_argument(
        "--height", type=at_least(16), metavar="PIXELS", help="store pictures at most this high (default: as they are)"
    )
    parser.add_argument("--exclude", type=Path, metavar="FILE", help="JSON list of files to leave out of each split")
    parser.add_argument(
        "--drop-same-pictures",
        action="store_true",
        help="leave out people whose picture came before in their split, or is in train",
    )
    add_json(parser)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def run_people(arguments: argparse.Namespace, report: Report) -> None:
    prepare_out(arguments.out)
    from ragdiff_jax.data.synth_people import prepare_synth_people

    numbers = {name: getattr(arguments, name) for name in ("count", "size", "seed")}
    folder = prepare_synth_people(arguments.out, **numbers, processes=arguments.processes)
    report.result({"folder": str(folder)} | numbers, f"{folder}: {arguments.count} people")


def run_dresscode(arguments: argparse.Namespace, report: Report) -> None:
    prepare_out(arguments.out)
    from ragdiff_jax.data.dresscode import prepare_dresscode

    _tell(
        prepare_dresscode(
            arguments.source,
            arguments.out,
            **_common(arguments),
            categories=arguments.categories,
            garments=arguments.garments,
            captions=not arguments.no_captions,
        ),
        report,
    )


def run_vitonhd(arguments: argparse.Namespace, report: Report) -> None:
    prepare_out(arguments.out)
    from ragdiff_jax.data.vitonhd import prepare_vitonhd

    _tell(prepare_vitonhd(arguments.source, arguments.out, **_common(arguments), captions=arguments.captions), report)


def _common(arguments):
    return {
        "splits": arguments.splits,
        "exclude": arguments.exclude,
        "same_pictures": arguments.drop_same_pictures,
        "height": arguments.height,
    }


def _tell(prepared, report) -> None:
    counts, left_out = dict(prepared.counts), dict(prepared.left_out)
    record = {"folder": str(prepared.folder), "counts": counts, "left_out": left_out}
    text = f"{prepared.folder}: " + ", ".join(f"{count} {split}" for split, count in counts.items())
    if any(left_out.values()):
        text += "; left out " + ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)
    report.result(record, text)
