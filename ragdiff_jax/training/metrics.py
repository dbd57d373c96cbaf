"""Where the numbers of a run go: step line, progress bar, metrics.jsonl, TensorBoard, sample pictures."""

import contextlib
import functools
import json
import os
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ragdiff_jax.errors import UserError
from ragdiff_jax.parallel.chips import chip_of


def clock(seconds: float) -> str:
    """`12:34`, or `1:02:03` from an hour on."""
    minutes, seconds = divmod(int(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes:02d}:{seconds:02d}"


def step_line(
    step: int,
    steps: int,
    scalars: Mapping[str, float],
    rate: float | None = None,
    eta: float = 0.0,
    tflops: float | None = None,
    mfu: float | None = None,
) -> str:
    """`step 120/4000  loss 0.1234  grad 0.98  lr 1.0e-4  54.2 samples/s  310 TFLOP/s  MFU 31.3 %  ETA 12:34`.

    Other scalars stand after grad; `rate` in samples a second (None: not known yet) and `eta` in seconds. `tflops` are
    useful operations a second of one device, `mfu` their share of its peak; without them the line does.
    """
    known = ("loss", "grad", "lr")
    lr = "{:.1e}".format(scalars["lr"]).replace("e-0", "e-").replace("e+00", "e0")
    parts = [f"step {step}/{steps}", f"loss {scalars['loss']:.4f}", f"grad {scalars['grad']:.2f}"]
    parts += [f"{name} {value:.4g}" for name, value in scalars.items() if name not in known]
    parts.append(f"lr {lr}")
    if rate is not None:
        parts.append(f"{rate:.1f} samples/s")
        if tflops is not None:
            parts.append(f"{tflops:.3g} TFLOP/s" + ("" if mfu is None else f"  MFU {100 * mfu:.1f} %"))
        parts.append(f"ETA {clock(eta)}")
    return "  ".join(parts)


@contextlib.contextmanager
def _without_torch() -> Iterator[None]:
    """tensorboardX imports torch where it is installed: two seconds, and CUDA libraries of its own beside JAX's."""
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None
    try:
        yield
    finally:
        del sys.modules["torch"]


def _truncate(path: Path, last_step: int) -> None:
    """Drop the lines after `last_step`, and a last line that was cut off; the file is replaced in one go."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] > last_step:
                continue
        except (ValueError, KeyError):
            continue
        kept.append(line + "\n")
    temporary = path.with_suffix(".partial")
    temporary.write_text("".join(kept))
    os.replace(temporary, path)


class MetricWriter:
    """Writes the numbers of a run; on processes other than 0 every method does nothing."""

    def __init__(
        self,
        workdir: Path,
        *,
        start_step: int,
        steps: int,
        batch_size: int,
        log_every: int,
        wandb: str = "",
        config: Mapping[str, Any] | None = None,
    ):
        """Lines of `metrics.jsonl` after `start_step` are dropped first: a resumed run writes them again.

        `wandb`: a project of Weights & Biases, under the workdir's name; a resumed run goes on there too.
        """
        self._flops: float | None = None
        self._devices, self._peak = 1, None
        self._active = jax.process_index() == 0
        self._steps, self._batch_size, self._log_every = steps, batch_size, log_every
        self._workdir = workdir
        if not self._active:
            return
        from tqdm import tqdm

        _truncate(workdir / "metrics.jsonl", start_step)
        self._file = open(workdir / "metrics.jsonl", "a", buffering=1)
        self._start_step = start_step
        self._bar = tqdm(total=steps, initial=start_step, unit="step") if sys.stderr.isatty() else None
        self._last: tuple[int, float] | None = None
        self._wandb = _open_wandb(wandb, workdir, config) if wandb else None

    @functools.cached_property
    def _board(self) -> Any:
        """TensorBoard's writer, from the first line on: a first step needn't wait for its import."""
        with _without_torch():
            from tensorboardX import SummaryWriter

        # Its thread ends at a write that fails, and a queue with an end would then hold the run up for ever.
        return SummaryWriter(str(self._workdir / "tensorboard"), purge_step=self._start_step + 1, max_queue=0)

    def reckon(self, flops_per_sample: float | None, mesh: Mesh) -> None:
        """From here on the step line has TFLOP/s a device, and MFU where the device is in the table of chips."""
        chip = chip_of(mesh.devices.flat[0].device_kind)
        self._flops, self._devices = flops_per_sample, mesh.size
        self._peak = None if chip is None else chip.flops

    def _log(self, step: int, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items():
            self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(dict(scalars), step=step)

    def say(self, text: str) -> None:
        """A line on stderr, above the progress bar."""
        if not self._active:
            return
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def step(self, step: int, scalars: Mapping[str, float]) -> None:
        """The scalars after `step` steps: to `metrics.jsonl`; at intervals step line and TensorBoard."""
        if not self._active:
            return
        self._file.write(json.dumps({"step": step, **{k: _number(v) for k, v in scalars.items()}}) + "\n")
        if self._bar is not None:
            self._bar.update(1)
        if self._last is None:  # the first step compiles: it says nothing about the rate
            self._last = (step, time.monotonic())
        if not self._log_every or (step % self._log_every and step != self._steps):
            return
        last_step, last_time = self._last
        now = time.monotonic()
        rate = (step - last_step) / max(1e-9, now - last_time)
        self._last = (step, now)
        if rate == 0:
            self._log(step, scalars)
            self.say(step_line(step, self._steps, scalars))
            return
        samples = rate * self._batch_size
        speed = {"samples_per_second": samples}
        tflops = mfu = None
        if self._flops is not None:
            speed["tflops_per_device"] = tflops = samples * self._flops / self._devices / 1e12
            if self._peak is not None:
                speed["mfu"] = mfu = tflops * 1e12 / self._peak
        self._log(step, {**scalars, **speed})
        self.say(step_line(step, self._steps, scalars, samples, (self._steps - step) / rate, tflops, mfu))

    def extra(self, step: int, scalars: Mapping[str, float], prefix: str) -> None:
        """Scalars outside the cadence (validation), as `prefix/name`, on a line of their own."""
        if not self._active or not scalars:
            return
        named = {f"{prefix}/{name}": _number(value) for name, value in scalars.items()}
        self._file.write(json.dumps({"step": step, **named}) + "\n")
        self._log(step, named)
        self.say(
            f"step {step}/{self._steps}  " + "  ".join(f"{name} {value:.4g}" for name, value in named.items())
        )

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Pictures, uint8 [h, w, 3]: `samples/step-N-name.png` and TensorBoard."""
        if not self._active or not images:
            return
        from PIL import Image

        folder = self._workdir / "samples"
        folder.mkdir(exist_ok=True)
        for name, image in images.items():
            image = np.asarray(image)
            path = folder / f"step-{step}-{name}.png"
            temporary = path.with_suffix(".partial")
            Image.fromarray(image).save(temporary, format="PNG")
            os.replace(temporary, path)
            self._board.add_image(name, image, step, dataformats="HWC")

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Time spent inside (sampling, validation) doesn't count into the rate."""
        start = time.monotonic()
        try:
            yield
        finally:
            if self._active and self._last is not None:
                self._last = (self._last[0], self._last[1] + time.monotonic() - start)

    def close(self) -> None:
        """Flush and close the files."""
        if self._active:
            self._file.close()
            if "_board" in self.__dict__:
                self._board.close()
            if self._bar is not None:
                self._bar.close()
            if self._wandb is not None:
                self._wandb.finish()


def _open_wandb(project: str, workdir: Path, config: Mapping[str, Any] | None) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise UserError(f"train.wandb={project}: pip install wandb, or leave it empty") from error
    # Kept with the run: two workdirs of one name are two runs, and a run that goes on is the same one.
    file = workdir / "wandb_id"
    if not file.is_file():
        file.write_text(secrets.token_hex(8))
    id = file.read_text().strip()
    return wandb.init(project=project, id=id, name=workdir.name, dir=workdir, config=dict(config or {}), resume="allow")


def _number(value) -> float:
    return float(value)
