"""Attributes of Table 6 and captions for pictures that have none, one JSONL line a picture; the same call resumes.

  vllm serve Qwen/Qwen2-VL-7B-Instruct --limit-mm-per-prompt image=1
  ragdiff annotate --source pairs --out pairs/attributes.jsonl --annotator server --name Qwen/Qwen2-VL-7B-Instruct
  ragdiff annotate --source flatlays --kind flat --out flatlays.jsonl --annotator transformers --name Qwen2-VL-2B/
  ragdiff annotate --source photos --kind photo --out photos.jsonl --annotator clip --model runs/tiny/clip

--source is a folder of pictures, a folder of pairs (photos/, flats/) or a prepared data set. Photos and flat-lays are
asked apart: a flat-lay's line says nothing that only a photo shows, and captions come from photos alone. What an
annotator says that Table 6 lacks stands under "invalid" and counts as unknown. Pictures that fail are reported and
tried again by the next call. After 8 refused in a row one that was answered is asked about again (where none was, one
still to come): without an answer to that either, the call stops.
"""

import argparse
import os
from pathlib import Path

from ragdiff_jax.cli.errors import Report
from ragdiff_jax.cli.inputs import add_json, at_least, model_folder, remember_compilations
from ragdiff_jax.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", required=True, type=Path, metavar="DIR", help="pictures, pairs, or a data set")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="JSONL; lines that are there stay")
    parser.add_argument(
        "--annotator", required=True, choices=("server", "transformers", "clip"), help="who looks at the pictures"
    )
    parser.add_argument(
        "--kind", choices=("both", "photo", "flat"), default="both", help="what they are (default: both sides of pairs)"
    )
    parser.add_argument("--split", default="train", help="split of a prepared data set (default %(default)s)")
    parser.add_argument("--limit", type=at_least(1), metavar="N", help="the first N pictures only (default: all)")
    parser.add_argument("--name", help="model of the server, or checkpoint of transformers")
    parser.add_argument("--model", type=Path, metavar="DIR", help="clip: folder with text and image encoder")
    parser.add_argument(
        "--url", default="http://localhost:8000/v1", help="server: OpenAI-compatible address (default %(default)s)"
    )
    parser.add_argument(
        "--api-key-env", default="OPENAI_API_KEY", metavar="VAR", help="server: variable that holds the key, if any"
    )
    parser.add_argument("--concurrency", type=at_least(1), default=8, help="pictures at once (default %(default)s)")
    parser.add_argument("--per-minute", type=at_least(0, float), default=0.0, help="server: requests (default: any)")
    parser.add_argument("--retries", type=at_least(0), default=4, help="tries more for a picture (default %(default)s)")
    parser.add_argument("--timeout", type=at_least(0.1, float), default=60.0, help="seconds (default %(default)s)")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, report: Report) -> None:
    from ragdiff_jax.pipelines.annotation.run import annotate_all, names_done, pictures_of

    pictures = pictures_of(arguments.source, arguments.split, arguments.kind, limit=arguments.limit)
    earlier = names_done(arguments.out)
    annotator = _annotator(arguments, report)
    invalid: dict[str, int] = {}
    failed: list[str] = []

    def done(line):
        for name, value in line.get("invalid", {}).items():
            key = f"{name}: {value}"
            invalid[key] = invalid.get(key, 0) + 1
        bar.update()

    def error(name, why):
        failed.append(name)
        report.error(why, name)
        bar.update()

    left = sum(picture.name not in earlier for picture in pictures)
    with report.progress(left, "picture") as bar:
        count = annotate_all(
            annotator, pictures, arguments.out, concurrency=arguments.concurrency, on_error=error, on_done=done
        )
    record = {
        "file": str(arguments.out),
        "annotator": annotator.name,
        "pictures": len(pictures),
        "written": count,
        "there_before": len(pictures) - left,
        "failed": len(failed),
        "invalid": dict(sorted(invalid.items(), key=lambda pair: -pair[1])),
    }
    text = f"{arguments.out}: {count} lines, {len(pictures) - left} were there, {len(failed)} pictures failed"
    for key, times in list(record["invalid"].items())[:10]:
        text += f"\n  not in Table 6, {times} times: {key}"
    report.result(record, text)


def _annotator(arguments: argparse.Namespace, report: Report):
    if arguments.annotator == "clip":
        from ragdiff_jax.pipelines.annotation.local import CLIPAnnotator

        if arguments.model is None:
            raise UserError("--annotator clip: name a folder with text and image encoder: --model")
        remember_compilations(report)
        return CLIPAnnotator(model_folder(arguments.model))
    if not arguments.name:
        raise UserError(f"--annotator {arguments.annotator}: name its model, e.g. --name Qwen/Qwen2-VL-7B-Instruct")
    if arguments.annotator == "transformers":
        from ragdiff_jax.pipelines.annotation.local import TransformersAnnotator

        return TransformersAnnotator(arguments.name)
    from ragdiff_jax.pipelines.annotation.server import ServerAnnotator

    return ServerAnnotator(
        arguments.url,
        arguments.name,
        api_key=os.environ.get(arguments.api_key_env, ""),
        timeout=arguments.timeout,
        retries=arguments.retries,
        per_minute=arguments.per_minute,
    )
