"""The trainings that the figures are taken from: two autoencoders, a stem of 4 channels, and what PGEA makes of it."""

import dataclasses
import subprocess
import sys
from pathlib import Path

STEM, SECOND, THIRD, SGD = 1500, 150, 450, 20_000  # steps at --scale 1
EVERYTHING = (
    "autoencoder4", "autoencoder16", "stem", "stage1", "stage1_sgd", "out", "out_sgd", "stage2", "stage3", "more",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Stages:
    """Where the runs are and what they are trained with.

    Attributes:
      work: the folder of the runs, one each.
      data: a data set of SynthGarments.
      decoded: a folder that keeps its decoded pairs.
      assets: a model folder whose text encoder and tokenizer take part.
      scale: of all steps; 1 is what docs/benchmarks.md shows.
    """

    work: Path
    data: Path
    decoded: Path
    assets: Path
    scale: float = 1.0

    def part(self, stage: str, name: str = "unet") -> Path:
        return self.work / stage / "model" / name

    def steps(self, count: int) -> int:
        return max(2, round(count * self.scale))

    def settings(self, stage: str) -> tuple[str, dict[str, object]]:
        """(config, what --set changes) of a stage."""
        text = {
            "model.parts.text_encoder": self.assets / "text_encoder",
            "data.tokenizer": self.assets / "tokenizer",
            "model.tokenizer": self.assets / "tokenizer",
        }
        vae4 = self.part("autoencoder4", "vae")
        vae16 = self.part("autoencoder16", "vae")
        pgea = text | {"model.parts.vae": vae16}
        first = pgea | {"model.parts.old_vae": vae4, "model.parts.unet": self.part("stem")}
        last = self.steps(SECOND) + self.steps(THIRD)
        return {
            "autoencoder4": ("autoencoder/tiny.py", self._autoencoder(4)),
            "autoencoder16": ("autoencoder/tiny.py", self._autoencoder(16)),
            "stem": (
                "text_to_image/tiny.py",
                text | {"model.parts.vae": vae4} | self._run(STEM, validate=500, sample=1000),
            ),
            "stage1": ("pgea/tiny.py:stage1", first | self._run(256, 64, 256)),
            "stage1_sgd": ("pgea/tiny.py:stage1_sgd", first | {"train.batch_size": 4} | self._run(SGD, 4000, SGD)),
            "out": ("pgea/tiny.py:stage1_out", pgea | self._from("stage1") | self._run(256, 64, 256)),
            "out_sgd": ("pgea/tiny.py:stage1_out", pgea | self._from("stage1_sgd") | self._run(256, 64, 256)),
            "stage2": ("pgea/tiny.py:stage2", pgea | self._from("out") | self._run(SECOND, 100, 150)),
            "stage3": ("pgea/tiny.py:stage3", pgea | self._from("stage2") | self._run(THIRD, 200, 300)),
            # The stem for as many steps again, at stage III's rate: what PGEA is held against.
            "more": (
                "pgea/tiny.py:stage3",
                text | {"model.parts.vae": vae4} | self._from("stem") | self._run(last, 250, 500, scaled=True),
            ),
        }[stage]

    def _from(self, stage: str) -> dict[str, object]:
        return {"model.parts.unet": self.part(stage)}

    def _autoencoder(self, channels: int) -> dict[str, object]:
        return {"model.vae.latent_channels": channels, "train.batch_size": 16} | self._run(2400, 600, 1200)

    def _run(self, steps: int, validate: int, sample: int, *, scaled: bool = False) -> dict[str, object]:
        count = steps if scaled else self.steps(steps)
        return {
            "train.steps": count,
            "train.warmup": 0 if count < 50 else 20,
            "train.validate_every": min(validate, count),
            "train.sample_every": min(sample, count),
        }

    def command(self, stage: str) -> list[str]:
        config, settings = self.settings(stage)
        data = {"data.folder": self.data, "data.decoded": self.decoded}
        sets = [f"--set={name}={value}" for name, value in (settings | data).items()]
        train = [sys.executable, "-m", "ragdiff_jax.cli.main", "train"]
        return [*train, "--config", f"configs/{config}", "--workdir", str(self.work / stage), *sets]

    def train(self, stage: str) -> None:
        """Trains a stage that isn't there yet, or goes on with it."""
        if not (self.work / stage / "model" / "model.json").is_file():
            subprocess.run(self.command(stage), check=True)
