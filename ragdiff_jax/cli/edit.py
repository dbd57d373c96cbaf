"""A person's picture and a text in, the same person wearing what the text and the garments say out.

  ragdiff edit anna.jpg --text "a plain shirt in navy" --box 120,80,200,260 --out out
  ragdiff edit anna.jpg --text "red hoodie" --label-map anna.png --category upper_body --keypoints anna.json --out out
  ragdiff edit anna.jpg --garment hoodie_flat.png --mask mask.png --out out     # your garment, none retrieved

Garments are retrieved by the text, within the category, from --memory; --garment takes yours in their place, such as a
flat-lay that `ragdiff generate` made. Writes for anna.jpg: anna.png (only the mask's pixels differ), anna_mask.png and
anna_panel.png (person, mask, garments with their similarity to the text, result).
"""

import argparse
from pathlib import Path

from ragdiff_jax.cli.errors import Report
from ragdiff_jax.cli.inputs import (
    add_json,
    at_least,
    model_folder,
    prepare_out,
    remember_compilations,
    result_stems,
    shipped,
)
from ragdiff_jax.errors import UserError

ENDINGS = (".png", "_panel.png", "_mask.png")
CATEGORIES = ("upper_body", "lower_body", "dresses")
SCHEMES = ("dresscode", "lip", "vitonhd", "ccp")
MODEL = "fashion_rag"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("person", type=Path, metavar="PERSON", help="picture of a person")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="where results go, made if missing")
    parser.add_argument("--text", default="", help="what the person shall wear; garments are retrieved by it")
    parser.add_argument(
        "--garment",
        action="append",
        default=[],
        type=Path,
        metavar="IMAGE",
        help="a garment of yours on a plain background, in place of retrieved ones; may stand several times",
    )
    parser.add_argument(
        "--n-retrieved", type=at_least(0), metavar="N", help="garments to retrieve (default: the model's, 0: none)"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--mask", type=Path, metavar="FILE", help="white where to draw anew, of the picture's size")
    where.add_argument("--box", type=_box, metavar="X,Y,W,H", help="draw this box anew; X,Y its upper left, in pixels")
    where.add_argument(
        "--label-map", type=Path, metavar="FILE", help="parse map of the picture: the mask follows from --category"
    )
    parser.add_argument(
        "--category", choices=CATEGORIES, help="which garment (default upper_body; needed with --label-map)"
    )
    parser.add_argument(
        "--label-scheme", choices=SCHEMES, default="dresscode", help="the parse map's ids (default %(default)s)"
    )
    parser.add_argument("--keypoints", type=Path, metavar="FILE", help="OpenPose's or Dress Code's JSON of the picture")
    parser.add_argument("--model", type=Path, metavar="DIR", help="model folder or finished workdir (default: shipped)")
    parser.add_argument(
        "--memory", type=Path, metavar="DIR", help="memory of garments to retrieve from (default: the shipped one)"
    )
    parser.add_argument(
        "--exclude", action="append", default=[], metavar="ID", help="never retrieve this garment; may be repeated"
    )
    parser.add_argument(
        "--pool",
        action="store_true",
        help="average the garments' words, by their similarity to the text: any number of them fits, and those that "
        "contradict it count less (default: one after another)",
    )
    parser.add_argument(
        "--reject",
        type=at_least(0, float),
        metavar="D",
        help="leave out garments whose similarity to the text is more than D below the best one's (default: keep all)",
    )
    parser.add_argument(
        "--reject-below",
        type=_cosine,
        metavar="COSINE",
        help="leave out garments whose similarity to the text is less than this; with none left the text alone is "
        "used (default: keep all)",
    )
    parser.add_argument(
        "--detail",
        action=argparse.BooleanOptionalAction,
        help="show the model the very picture of the garment that counts most, beside its words (default: if the model "
        "has a reference_net)",
    )
    parser.add_argument(
        "--whole",
        action="store_true",
        help="show the model the whole picture, as the paper does (default: the model's own; the shipped one sees "
        "the part around what is drawn anew)",
    )
    parser.add_argument(
        "--steps", type=at_least(1), default=30, metavar="N", help="denoising steps (default %(default)s)"
    )
    parser.add_argument(
        "--guidance", type=at_least(0, float), metavar="G", help="guidance scale (default: the model's own)"
    )
    parser.add_argument("--seed", type=at_least(0), default=0, metavar="S", help="of the noise (default %(default)s)")
    parser.add_argument("--sampler", choices=("ddim", "ddpm", "dpm"), help="default: the model's own")
    add_json(parser)
    parser.set_defaults(run=run)


def _box(text: str) -> tuple[int, int, int, int]:
    try:
        left, top, width, height = (int(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: write X,Y,W,H, four whole numbers of pixels") from None
    return left, top, width, height


def _cosine(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not -1 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no cosine; give -1 to 1")
    return value


def run(arguments: argparse.Namespace, report: Report) -> None:
    try:
        _edit(arguments, report)
    except UserError as error:
        report.error(error, str(arguments.person))


def _edit(arguments: argparse.Namespace, report: Report) -> None:
    prepare_out(arguments.out)
    (stem,) = result_stems([arguments.person], ENDINGS, arguments.out)
    person = read_person(arguments)
    editor = load_editor(arguments, report)
    retrieve = editor.model.retrieved if arguments.n_retrieved is None else arguments.n_retrieved
    (result,) = editor.edit(
        [person],
        retrieve=retrieve,
        steps=arguments.steps,
        guidance=arguments.guidance,
        seed=arguments.seed,
        sampler=arguments.sampler,
    )
    _write(arguments, stem, person, result, report)


def read_person(arguments: argparse.Namespace):
    """The person that the arguments describe. Raises `UserError` that names the file or value and the fix."""
    import numpy as np

    from ragdiff_jax.data.images import image_size, load_image
    from ragdiff_jax.data.inpainting_masks import box_mask, inpainting_mask, read_mask
    from ragdiff_jax.data.label_maps import decode_labels, resize_labels
    from ragdiff_jax.data.pose import read_keypoints
    from ragdiff_jax.pipelines.edit import Person

    if arguments.mask is None and arguments.box is None and arguments.label_map is None:
        raise UserError(
            f"{arguments.person}: say what to draw anew: --mask FILE (white on black, of the picture's size), "
            "--box X,Y,W,H, or --label-map FILE --category upper_body|lower_body|dresses"
        )
    if arguments.label_map is not None and arguments.category is None:
        raise UserError(f"--label-map {arguments.label_map}: say which garment: --category {'|'.join(CATEGORIES)}")
    if arguments.garment and arguments.n_retrieved:
        raise UserError("--garment and --n-retrieved: garments of yours stand in the place of retrieved ones; give one")
    if arguments.garment and arguments.exclude:
        raise UserError("--garment and --exclude: nothing is retrieved beside garments of yours; leave --exclude out")
    if not arguments.text and (arguments.reject, arguments.reject_below) != (None, None):
        raise UserError("--reject and --reject-below compare garments with the text; give --text, or leave them out")
    image = load_image(arguments.person)
    # What the user counts in pixels are the file's, of which `load_image` keeps fewer where there are very many.
    shape, frame = image.shape[:2], image_size(arguments.person.read_bytes(), str(arguments.person))
    keypoints = None if arguments.keypoints is None else read_keypoints(arguments.keypoints, shape, frame=frame)
    category = arguments.category or "upper_body"
    if arguments.mask is not None:
        mask = read_mask(arguments.mask, shape, frame)
    elif arguments.box is not None:
        mask = resize_labels(box_mask(arguments.box, frame).astype(np.uint8), shape) > 0
        if mask.all() or not mask.any():
            raise UserError(
                f"--box {','.join(map(str, arguments.box))}: of the {shape[1]}x{shape[0]} pixels that are kept of "
                f"{frame[1]}x{frame[0]} it has {'all; make it smaller' if mask.all() else 'none; make it larger'}"
            )
    else:
        try:
            data = arguments.label_map.read_bytes()
        except OSError as error:
            raise UserError(f"{arguments.label_map}: cannot be read ({error.strerror}); check the path") from error
        labels = decode_labels(data, arguments.label_scheme, str(arguments.label_map))
        if labels.shape != frame:
            raise UserError(
                f"{arguments.label_map}: is {labels.shape[1]}x{labels.shape[0]}, the person {frame[1]}x{frame[0]}; "
                "they must have one size"
            )
        labels = resize_labels(labels, shape)
        try:
            rules = "vitonhd" if arguments.label_scheme == "vitonhd" and category == "upper_body" else "dresscode"
            mask = inpainting_mask(labels, category, keypoints, rules=rules)
        except UserError as error:
            raise UserError(f"{arguments.label_map}: {error}") from None
    garments = tuple((str(path), load_image(path)) for path in arguments.garment)
    return Person(
        image=image,
        mask=mask,
        category=category,
        text=" ".join(arguments.text.split()),
        keypoints=keypoints,
        garments=garments,
        exclude=tuple(arguments.exclude),
    )


def load_editor(arguments: argparse.Namespace, report: Report, **options):
    """The editor of `--model` and `--memory`."""
    remember_compilations(report)
    from ragdiff_jax.pipelines.edit import PersonEditor

    folder = editor_folder(arguments.model)
    needs = not getattr(arguments, "garment", None)
    return PersonEditor.from_folders(
        folder,
        (arguments.memory or shipped("memory")) if needs else None,
        on_build=lambda count: report.note(f"ragdiff: reading {count} garments for text, once"),
        fusion="pool" if getattr(arguments, "pool", False) else "concat",
        weighting="similarity" if getattr(arguments, "pool", False) else "equal",
        reject=getattr(arguments, "reject", None),
        reject_below=getattr(arguments, "reject_below", None),
        detail=getattr(arguments, "detail", None),
        window=0.0 if getattr(arguments, "whole", False) else None,
        **options,
    )


def editor_folder(model: Path | None) -> Path:
    """The model folder that `--model` means; the shipped editor without it. Raises `UserError` if there is none."""
    if model is not None:
        return model_folder(model)
    folder = shipped(MODEL)
    if not (folder / "model.json").is_file():
        raise UserError("this copy ships no editing model; train one with ./launch/train_fashion and name it: --model")
    return folder


def edit_record(result) -> dict:
    """What `--json` says of the garments and the database."""
    return {
        "garments": [
            {
                "id" if garment.retrieved else "file": garment.name,
                "similarity": None if garment.similarity is None else round(garment.similarity, 6),
                "weight": round(garment.weight, 6),
            }
            for garment in result.garments
        ],
        "prompt": result.prompt,
        "detail": result.detail,
        "database_split": result.database_split,
        "target_excluded": result.target_excluded,
        "warnings": list(result.warnings),
    }


def _write(arguments: argparse.Namespace, stem: str, person, result, report: Report) -> None:
    import numpy as np

    from ragdiff_jax.data.images import save_image
    from ragdiff_jax.pipelines.edit_panel import edit_cells
    from ragdiff_jax.pipelines.panel import draw_panel

    output, panel, mask = (arguments.out / (stem + ending) for ending in ENDINGS)
    save_image(mask, np.repeat(result.mask[..., None], 3, axis=-1).astype(np.uint8) * 255)
    save_image(panel, draw_panel([edit_cells(person.image, result)]))
    save_image(output, result.image)
    record = {
        "input": str(arguments.person),
        "output": str(output),
        "panel": str(panel),
        "mask": str(mask),
        **edit_record(result),
        "seed": arguments.seed,
        "seconds": {name: round(seconds, 4) for name, seconds in result.seconds.items()},
    }
    for warning in result.warnings:
        report.note(f"ragdiff: {arguments.person}: {warning}")
    lines = [f"{arguments.person} -> {output}"]
    for garment in result.garments:
        likeness = "" if garment.similarity is None else f"  similarity {garment.similarity:.3f}"
        lines.append(f"  {garment.name}{likeness}  weight {garment.weight:.2f}")
    if result.detail is not None:
        lines.append(f"  seen in detail: {result.detail}")
    if result.database_split is not None:
        left = "with ids left out" if result.target_excluded else "none left out"
        lines.append(f"  retrieved from split {result.database_split}, {left}")
    report.result(record, "\n".join(lines))
