"""The memory's nearest garments of each photo: cosine, SLLE weight, whose silhouette is used, and which it may be.

ragdiff retrieve hoodie.jpg --json
ragdiff retrieve hoodie.jpg --alternative 1
ragdiff retrieve photos/*.jpg --out out        # also the silhouettes and a panel a photo
"""

import argparse
from pathlib import Path

from ragdiff_jax.cli.errors import Report
from ragdiff_jax.cli.inputs import (
    Photo,
    add_json,
    add_photo_arguments,
    listed_photos,
    load_generator,
    model_folder,
    prepare_out,
    read_descriptions,
    read_landmark,
    read_photos,
    result_stems,
    split_attributes,
    will_predict,
)

ENDINGS = ("_panel.png", "_landmark.png")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, metavar="DIR", help="write panels and silhouettes there (default: neither)")
    add_photo_arguments(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, report: Report) -> None:
    paths = listed_photos(arguments.photos, arguments.out)
    if arguments.out is None:
        stems = [photo.stem for photo in paths]
    else:
        prepare_out(arguments.out)
        stems = result_stems(paths, ENDINGS, arguments.out)
    file, rest = split_attributes(arguments.attributes)
    described = read_descriptions(file, paths)
    landmark = read_landmark(arguments)
    generator = load_generator(arguments, report)
    predict = will_predict(generator, rest, model_folder(arguments.model))
    generator.check(landmark=landmark)
    if not report.as_json:
        report.note(f"ragdiff: search {generator.search_choice}")
    with report.progress(len(paths), "photo") as bar:
        for photos in read_photos(paths, stems, described, report, chunk=generator.batch_size):
            results = generator.retrieve(
                [photo.image for photo in photos],
                [photo.description.attributes for photo in photos],
                predict=predict,
                landmark=landmark,
            )
            for photo, retrieved in zip(photos, results, strict=True):
                _write(photo, retrieved, generator, arguments, report)
                bar.update()


def _write(photo: Photo, retrieved, generator, arguments: argparse.Namespace, report: Report) -> None:
    from ragdiff_jax.cli.results import retrieval_record, save_landmark, say_doubts
    from ragdiff_jax.data.images import save_image
    from ragdiff_jax.errors import UserError
    from ragdiff_jax.pipelines.panel import draw_panel, panel_rows

    record = {"input": str(photo.path), "landmark": None, **retrieval_record(retrieved)}
    record["search"] = generator.search_choice
    if arguments.out is not None:
        panel, landmark = (arguments.out / (photo.stem + ending) for ending in ENDINGS)
        try:
            save_landmark(landmark, retrieved)
            save_image(panel, draw_panel(panel_rows(photo.image, retrieved, None, generator.memory)))
        except UserError as error:
            report.error(error, str(photo.path))
            return
        record |= {"landmark": str(landmark), "panel": str(panel)}
    lines = [f"{photo.path}"]
    for rank, neighbour in enumerate(record["neighbours"]):
        mark = "  <- silhouette" if rank == retrieved.choice else ""
        lines.append(f"  {neighbour['cosine']:.3f}  weight {neighbour['weight']:+.2f}  {neighbour['id']}{mark}")
    if retrieved.choice is not None and retrieved.choice >= len(retrieved.ids):
        lines.append(f"  silhouette: {retrieved.landmark_id}, number {retrieved.choice + 1} by cosine")
    if record["alternatives"]:
        lines.append("  silhouettes it may have (--alternative):")
    for place, one in enumerate(retrieved.alternatives):
        chance = "" if one.chance is None else f"chance {one.chance:.0%}  "
        lines.append(f"    {place}  {chance}{one.id}{'  <- silhouette' if one.rank == retrieved.choice else ''}")
    say_doubts(report, photo.path, retrieved)
    report.result(record, "\n".join(lines))
