r"""Weights in and out, in the layouts of diffusers and transformers, and what they weigh.

  ragdiff weights import stabilityai/stable-diffusion-xl-base-1.0 --revision COMMIT --subfolder unet \
      --kind unet --to unet
  ragdiff weights import clip/ --kind clip-vision --to vision           # transformers' or OpenCLIP's layout
  ragdiff weights import unet_120000.pth --kind unet --config fashion-rag --to unet
  ragdiff weights import ip-adapter-plus_sdxl_vit-h.safetensors --kind ip-adapter --embed-dim 768 --to ep_adapter
  ragdiff weights import pt_inception-2015-12-05-6726825d.pth --kind inception --to metrics/inception
  ragdiff weights import alexnet-owt-7be5be79.pth --with alex.pth --kind lpips-alex --to metrics/lpips
  ragdiff weights export runs/mine --to out --dtype bfloat16            # a model folder, or one of its parts
  ragdiff weights export runs/mine --to out --lora adapters/            # with LoRA merged in
  ragdiff weights info runs/mine --mesh data=1,fsdp=8

What is imported is a folder that `config.model.parts` of a training config takes, and that diffusers or transformers
load. Torch files are read without running anything in them. A target is written whole or not at all.
"""

import argparse
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ragdiff_jax.cli.errors import Report
from ragdiff_jax.cli.inputs import add_json, model_folder
from ragdiff_jax.errors import UserError

# Kind -> published architectures. Written out, because help must not import JAX; a test holds them to weights.kinds.
KINDS = {
    "unet": ("sd1", "sd2", "sd2-inpainting", "sdxl", "fashion-rag", "ladi-vton"),
    "vae": ("sd", "sdxl", "flux"),
    "clip-text": ("vit-l", "vit-h", "vit-h-sd2", "bigg"),
    "clip-vision": ("vit-l", "vit-h"),
    "dinov2": ("small", "base", "large", "giant"),
    "ip-adapter": ("plus-sdxl",),
    "f-theta": ("vit-h",),
}
# Networks of `ragdiff evaluate --networks`; a test holds them to weights.metric_networks.
METRIC_KINDS = ("inception", "lpips-alex", "lpips-vgg", "dists")
DTYPES = ("float32", "bfloat16", "float16", "float64")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    _add_import(verbs.add_parser("import", help="a published checkpoint into a part folder"))
    _add_export(verbs.add_parser("export", help="a model or a part for diffusers and transformers, LoRA merged"))
    _add_info(verbs.add_parser("info", help="parameters, dtypes, bytes, bytes a device of a mesh"))


def _add_import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", metavar="SOURCE", help="folder, .safetensors or torch file, or a hub id OWNER/NAME with --revision"
    )
    parser.add_argument(
        "--kind", required=True, choices=(*KINDS, *METRIC_KINDS), help="what network it is: %(choices)s", metavar="KIND"
    )
    parser.add_argument(
        "--with", dest="beside", metavar="FILE", help="lpips-alex, lpips-vgg, dists: the authors' file of weightings"
    )
    parser.add_argument("--to", required=True, type=Path, metavar="DIR", help="the part folder, not there yet")
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="its config.json, or a published architecture (default: the config beside the weights): "
        + "; ".join(f"{kind}: {', '.join(names)}" for kind, names in KINDS.items()),
    )
    parser.add_argument(
        "--revision", metavar="COMMIT", help="of a hub id: a commit's 40 hex digits, so that it is pinned"
    )
    parser.add_argument("--subfolder", metavar="NAME", help="of SOURCE, such as unet or text_encoder_2")
    parser.add_argument("--file", metavar="NAME", help="one file of SOURCE, where it holds several checkpoints")
    parser.add_argument("--variant", metavar="NAME", help="such as fp16, in the files' names (default: none)")
    _add_dtype(parser)
    parser.add_argument(
        "--embed-dim",
        type=int,
        metavar="D",
        help="ip-adapter: width of the embedding that will go in; its first projection starts anew (default: 1280)",
    )
    add_json(parser)
    parser.set_defaults(run=run_import)


def _add_dtype(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dtype", choices=DTYPES, help="of the written tensors: %(choices)s (default: as they are)")


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="model folder, finished workdir, or folder of one part"
    )
    parser.add_argument("--to", required=True, type=Path, metavar="DIR", help="the new folder, not there yet")
    parser.add_argument("--part", action="append", default=[], metavar="NAME", help="this part only; may be repeated")
    _add_dtype(parser)
    parser.add_argument(
        "--lora", type=Path, metavar="PATH", help="adapters to merge: diffusers' or PEFT's file or folder"
    )
    parser.add_argument("--lora-scale", type=float, default=1.0, metavar="X", help="strength of --lora (default 1)")
    add_json(parser)
    parser.set_defaults(run=run_export)


def _add_info(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="model folder, workdir, folder of one part, or a file"
    )
    parser.add_argument("--mesh", metavar="SIZES", help="such as data=1,fsdp=8: bytes that one of its devices holds")
    parser.add_argument("--dtype", choices=DTYPES, help="on the devices: %(choices)s (default: as on disk)")
    add_json(parser)
    parser.set_defaults(run=run_info)


def run_import(arguments: argparse.Namespace, report: Report) -> None:
    if arguments.kind in METRIC_KINDS:
        return _run_import_metric(arguments, report)
    if arguments.beside is not None:
        raise UserError(f"--with goes with --kind {', '.join(METRIC_KINDS[1:])}, not {arguments.kind}")
    from ragdiff_jax.weights.importing import import_weights

    done = import_weights(
        arguments.source,
        arguments.kind,
        arguments.to,
        config=arguments.config,
        revision=arguments.revision,
        subfolder=arguments.subfolder,
        file=arguments.file,
        variant=arguments.variant,
        dtype=arguments.dtype,
        embed_dim=arguments.embed_dim,
        progress=_bar(report),
    )
    record = {
        "source": arguments.source,
        "kind": arguments.kind,
        "folder": str(done.folder),
        "parameters": done.parameters,
        "bytes": done.bytes,
        "dtypes": list(done.dtypes),
        "started_anew": list(done.started_anew),
    }
    text = f"{done.folder}: {_count(done.parameters)} parameters, {_size(done.bytes)}, {', '.join(done.dtypes)}"
    if done.started_anew:
        text += f"; started anew: {', '.join(done.started_anew)}"
    report.result(record, text)


def _run_import_metric(arguments: argparse.Namespace, report: Report) -> None:
    from ragdiff_jax.weights.checkpoints import fetch
    from ragdiff_jax.weights.metric_networks import import_metric_network

    for name in ("config", "variant", "dtype", "embed_dim"):
        if getattr(arguments, name) is not None:
            raise UserError(f"--{name.replace('_', '-')} doesn't go with --kind {arguments.kind}")
    first = fetch(arguments.source, revision=arguments.revision, subfolder=arguments.subfolder, file=arguments.file)
    files = [first] if arguments.beside is None else [first, Path(arguments.beside)]
    done = import_metric_network(arguments.kind, files, arguments.to, _bar(report))
    record = {
        "source": arguments.source,
        "kind": arguments.kind,
        "folder": str(done.folder),
        "parameters": done.parameters,
        "bytes": done.bytes,
        "public": done.public,
    }
    text = f"{done.folder}: {_count(done.parameters)} parameters, {_size(done.bytes)}"
    for name, known in done.public.items():
        text += f"; {name} is {'the published file' if known else 'not the published file (another SHA-256)'}"
    report.result(record, text)


def run_export(arguments: argparse.Namespace, report: Report) -> None:
    from ragdiff_jax.weights.exporting import export_model

    done = export_model(
        _folder(arguments.model),
        arguments.to,
        parts=arguments.part,
        dtype=arguments.dtype,
        lora=arguments.lora,
        lora_scale=arguments.lora_scale,
        progress=_bar(report),
    )
    for part in done:
        record = {
            "part": part.part,
            "folder": str(part.folder),
            "parameters": part.parameters,
            "bytes": part.bytes,
            "adapted": part.adapted,
        }
        text = f"{part.folder}: {_count(part.parameters)} parameters, {_size(part.bytes)}"
        report.result(record, text + (f", {part.adapted} modules adapted" if part.adapted else ""))


def run_info(arguments: argparse.Namespace, report: Report) -> None:
    from ragdiff_jax.weights.info import as_record, parse_mesh, weights_info

    mesh = parse_mesh(arguments.mesh) if arguments.mesh else None
    parts = weights_info(_folder(arguments.model), mesh=mesh, dtype=arguments.dtype)
    for info in parts:
        dtypes = ", ".join(f"{name} {_count(count)}" for name, count in info.dtypes.items())
        text = f"{info.part or arguments.model}: {info.called}, {_count(info.parameters)} parameters ({dtypes}), "
        text += _size(info.bytes)
        if info.device_bytes is not None:
            text += f", {_size(info.device_bytes)} a device"
        report.result(as_record(info), text)
    if len(parts) > 1 and not arguments.json:
        text = f"all: {_count(sum(i.parameters for i in parts))} parameters, {_size(sum(i.bytes for i in parts))}"
        if mesh is not None:
            text += f", {_size(sum(i.device_bytes or 0 for i in parts))} a device"
        print(text)


def _folder(path: Path) -> Path:
    """A workdir's model; a run that has none yet is told so."""
    if (path / "model" / "model.json").is_file() or (path / "checkpoints").is_dir():
        return model_folder(path)
    return path


def _bar(report: Report) -> Callable[[int], Any]:
    @contextlib.contextmanager
    def progress(count: int) -> Iterator[Callable[[], Any]]:
        with report.progress(count, "tensor") as bar:
            yield bar.update

    return progress


def _count(number: int) -> str:
    for limit, suffix in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= limit:
            return f"{number / limit:.2f} {suffix}"
    return str(number)


def _size(number: int) -> str:
    for limit, suffix in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if number >= limit:
            return f"{number / limit:.2f} {suffix}"
    return f"{number} B"
