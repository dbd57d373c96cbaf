"""Photos of garments in, standard flat-lays out.

  ragdiff generate hoodie.jpg --out out
  ragdiff generate photos/*.jpg --out out --attributes photos.jsonl --seed 7
  ragdiff generate hoodie.jpg --out out --landmark my_mask.png
  ragdiff generate hoodie.jpg --out another --alternative 1
  ragdiff generate photos --out out --batch 64 --devices 8

Writes for hoodie.jpg: hoodie.png (the flat-lay), hoodie_panel.png (photo, neighbours with cosine and weight,
the landmark used, the result; below, the silhouettes that the garment may have) and hoodie_landmark.png (the
silhouette used). A bad input is reported and the others go on.
"""

import argparse
from pathlib import Path

from ragdiff_jax.cli.errors import Report
from ragdiff_jax.cli.inputs import (
    Photo,
    add_json,
    add_photo_arguments,
    at_least,
    listed_photos,
    load_generator,
    model_folder,
    prepare_out,
    read_descriptions,
    read_landmark,
    read_photos,
    result_stems,
    shared_mesh,
    split_attributes,
    will_predict,
)

ENDINGS = (".png", "_panel.png", "_landmark.png")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="where results go, made if missing")
    add_photo_arguments(parser)
    parser.add_argument(
        "--steps", type=at_least(1), default=30, metavar="N", help="denoising steps (default %(default)s)"
    )
    parser.add_argument(
        "--guidance", type=at_least(0, float), metavar="G", help="guidance scale (default: the model's own)"
    )
    parser.add_argument("--seed", type=at_least(0), default=0, metavar="S", help="of the noise (default %(default)s)")
    parser.add_argument(
        "--resume", action="store_true", help="leave out photos whose results are in --out, as the same call names them"
    )
    parser.add_argument("--sampler", choices=("ddim", "ddpm", "dpm"), help="default: the model's own")
    parser.add_argument(
        "--batch", type=at_least(1), default=4, metavar="N", help="photos made at a time (default %(default)s)"
    )
    parser.add_argument(
        "--devices", type=at_least(1), default=1, metavar="N", help="that share a batch (default %(default)s)"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, report: Report) -> None:
    prepare_out(arguments.out)
    paths = listed_photos(arguments.photos, arguments.out)
    stems = result_stems(paths, ENDINGS, arguments.out)
    file, rest = split_attributes(arguments.attributes)
    described = read_descriptions(file, paths)
    if arguments.resume:
        left = [(path, stem) for path, stem in zip(paths, stems, strict=True) if not _made(arguments.out, stem)]
        report.note(f"ragdiff: {len(paths) - len(left)} of {len(paths)} photos have their results in {arguments.out}")
        if not left:
            return
        paths, stems = map(list, zip(*left, strict=True))
    landmark = read_landmark(arguments)
    mesh = shared_mesh(arguments.devices)
    generator = load_generator(arguments, report, batch_size=arguments.batch, mesh=mesh)
    predict = will_predict(generator, rest, model_folder(arguments.model))
    generator.check(landmark=landmark, steps=arguments.steps, sampler=arguments.sampler)
    chunks = read_photos(paths, stems, described, report, chunk=generator.batch_size)
    with report.progress(len(paths), "photo") as bar:
        for photos in chunks:
            results = generator.generate(
                [photo.image for photo in photos],
                [photo.description.attributes for photo in photos],
                captions=[photo.description.caption for photo in photos],
                steps=arguments.steps,
                guidance=arguments.guidance,
                seed=arguments.seed,
                sampler=arguments.sampler,
                predict=predict,
                landmark=landmark,
            )
            for photo, result in zip(photos, results, strict=True):
                _write(photo, result, generator, arguments, report)
                bar.update()


def _made(out: Path, stem: str) -> bool:
    """The picture is written last."""
    return (out / (stem + ENDINGS[0])).is_file()


def _write(photo: Photo, result, generator, arguments: argparse.Namespace, report: Report) -> None:
    from ragdiff_jax.cli.results import retrieval_record, save_landmark, say_doubts
    from ragdiff_jax.data.images import save_image
    from ragdiff_jax.errors import UserError
    from ragdiff_jax.pipelines.panel import draw_panel, panel_rows

    output, panel, landmark = (arguments.out / (photo.stem + ending) for ending in ENDINGS)
    try:
        save_landmark(landmark, result.retrieved)
        save_image(panel, draw_panel(panel_rows(photo.image, result.retrieved, result.image, generator.memory)))
        save_image(output, result.image)
    except UserError as error:
        report.error(error, str(photo.path))
        return
    record = {
        "input": str(photo.path),
        "output": str(output),
        "panel": str(panel),
        "landmark": str(landmark),
        **retrieval_record(result.retrieved),
        "seed": arguments.seed,
        "seconds": {name: round(seconds, 4) for name, seconds in result.seconds.items()},
    }
    nearest = result.retrieved
    say_doubts(report, photo.path, nearest)
    report.result(record, f"{photo.path} -> {output}  (nearest {nearest.ids[0]}, cosine {nearest.cosines[0]:.2f})")
