"""Data sets: drawn ones that need no download, and people from folders that you have.

  ragdiff data synth --out data/synth --count 4096 --size 128
  ragdiff data synth --out data/synth --style studio --extreme 512
  ragdiff data tokenizer --dataset data/synth --out data/tokenizer
  ragdiff data partners --dataset pairs --out partners.jsonl      # for --set data.partners=partners.jsonl
  ragdiff data people --out data/people --count 4096 --size 128
  ragdiff data dresscode --source DressCode --out data --height 512
  ragdiff data vitonhd --source VITON-HD --out data --height 512
"""

import argparse
from pathlib import Path

from ragdiff_jax.cli.errors import Report
from ragdiff_jax.cli.inputs import add_json, at_least, prepare_out
from ragdiff_jax.cli.partners import add_partner_verb
from ragdiff_jax.cli.person_data import add_person_verbs
from ragdiff_jax.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    synth = verbs.add_parser("synth", help="draw garments: flat-lay, photo, mask, attributes, caption")
    synth.add_argument("--out", required=True, type=Path, metavar="DIR", help="data directory, made if missing")
    synth.add_argument(
        "--count", type=at_least(2), default=4096, help="garments, in structure twins (default %(default)s)"
    )
    synth.add_argument("--size", type=at_least(16), default=128, help="pixels a side (default %(default)s)")
    synth.add_argument("--seed", type=at_least(0), default=0, help="which garments (default %(default)s)")
    synth.add_argument(
        "--extreme",
        type=at_least(0),
        default=0,
        metavar="COUNT",
        help="garments of unusual shapes and loud patterns besides, as a split named extreme (default: none)",
    )
    synth.add_argument(
        "--style", default="drawn", help="how they are rendered: drawn or studio (default %(default)s)"
    )
    synth.add_argument("--processes", type=at_least(1), default=1, help="drawing processes (default %(default)s)")
    add_json(synth)
    synth.set_defaults(run=run)
    tokenizer = verbs.add_parser("tokenizer", help="learn a CLIP-layout vocabulary from a data set's captions")
    tokenizer.add_argument("--dataset", required=True, type=Path, metavar="DIR", help="a data set of pairs")
    tokenizer.add_argument("--split", default="train", help="split of it (default %(default)s)")
    tokenizer.add_argument("--out", required=True, type=Path, metavar="DIR", help="the tokenizer, not there yet")
    tokenizer.add_argument("--size", type=at_least(514), default=768, help="tokens (default %(default)s)")
    add_json(tokenizer)
    tokenizer.set_defaults(run=run_tokenizer)
    add_partner_verb(verbs)
    add_person_verbs(verbs, parser.formatter_class)


def run(arguments: argparse.Namespace, report: Report) -> None:
    prepare_out(arguments.out)
    from ragdiff_jax.data.synth_dataset import prepare_synth

    folder = prepare_synth(
        arguments.out,
        count=arguments.count,
        size=arguments.size,
        seed=arguments.seed,
        extreme=arguments.extreme,
        style=arguments.style,
        processes=arguments.processes,
    )
    record = {"folder": str(folder)} | {
        name: getattr(arguments, name) for name in ("count", "size", "seed", "style", "extreme")
    }
    report.result(record, f"{folder}: {arguments.count + arguments.extreme} garments")


def run_tokenizer(arguments: argparse.Namespace, report: Report) -> None:
    if arguments.out.exists():
        raise UserError(f"{arguments.out}: is there already; choose another --out")
    prepare_out(arguments.out.parent)
    from ragdiff_jax.data.folder import open_pairs
    from ragdiff_jax.data.tokenizer import train_tokenizer

    source = open_pairs(arguments.dataset, arguments.split)
    with report.progress(len(source), "caption") as bar:

        def captions():
            for row in range(len(source)):
                yield source[row].caption
                bar.update()

        tokenizer = train_tokenizer(captions(), arguments.size, arguments.out)
    record = {"folder": str(arguments.out), "tokens": tokenizer.vocab_size}
    report.result(record, f"{arguments.out}: {tokenizer.vocab_size} tokens")
