"""What the editor's words for a garment mean: the nearest words of its text encoder to each of F_theta's tokens.

  ragdiff words hoodie.png skirt.png --out out

Writes words.png (each garment over its tokens' nearest words) and prints the table.
"""

import argparse
from pathlib import Path

from ragdiff_jax.cli.edit import editor_folder
from ragdiff_jax.cli.errors import Report
from ragdiff_jax.cli.inputs import add_json, at_least, prepare_out, remember_compilations
from ragdiff_jax.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("garments", nargs="+", type=Path, metavar="GARMENT", help="pictures of garments")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="where words.png goes, made if missing")
    parser.add_argument("--nearest", type=at_least(1), default=3, metavar="K", help="per token (default %(default)s)")
    parser.add_argument("--model", type=Path, metavar="DIR", help="model folder or finished workdir (default: shipped)")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, report: Report) -> None:
    prepare_out(arguments.out)
    from ragdiff_jax.data.images import load_image, save_image
    from ragdiff_jax.data.tokenizer import Tokenizer
    from ragdiff_jax.evaluation.nearest_words import nearest_words, word_cells
    from ragdiff_jax.pipelines.panel import draw_panel
    from ragdiff_jax.weights.fashion_folder import load_fashion, read_fashion, tokenizer_folder

    pictures = []
    for path in arguments.garments:
        try:
            pictures.append((path, load_image(path)))
        except UserError as error:
            report.error(error, str(path))
    if not pictures:
        return
    remember_compilations(report)
    folder = editor_folder(arguments.model)
    model = read_fashion(folder)
    tokenizer = Tokenizer.from_folder(tokenizer_folder(folder))
    found = nearest_words(
        model, load_fashion(model, folder), tokenizer, [image for _, image in pictures], arguments.nearest
    )
    picture = arguments.out / "words.png"
    cells = [word_cells(image, path.name, tokens)[0] for (path, image), tokens in zip(pictures, found, strict=True)]
    save_image(picture, draw_panel([cells[start : start + 4] for start in range(0, len(cells), 4)]))
    for (path, _), tokens in zip(pictures, found, strict=True):
        said = [dict(zip(token.words, token.cosines, strict=True)) for token in tokens]
        record = {"input": str(path), "picture": str(picture), "tokens": said}
        text = [str(path)]
        for number, token in enumerate(tokens, start=1):
            pairs = (f"{word} {cosine:.2f}" for word, cosine in zip(token.words, token.cosines, strict=True))
            text.append(f"  {number:2d}  " + "  ".join(pairs))
        report.result(record, "\n".join(text))
