"""TFDS data sets written row after row, of any size, without TensorFlow.

TFDS's own writer keeps a split in memory to sort it, and where it is larger than 1 GB sorts it on disk, by TensorFlow's
file functions. Our rows come in their order, so that there is nothing to sort.
Importing this module imports TFDS; import it where it is used.
"""

import itertools
from collections.abc import Iterable

import tensorflow_datasets as tfds
from tensorflow_datasets.core.example_serializer import ExampleSerializer
from tensorflow_datasets.core.naming import ShardedFileTemplate

from ragdiff_jax.array_records import record_writer

SHARD_BYTES = 256 << 20


class InOrderBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A builder whose `_split_generators` gives each split's examples in the order of their keys."""

    def _download_and_prepare(self, dl_manager, download_config):
        # One after the other: they may share what draws them.
        infos = [self._written(split, examples) for split, examples in self._split_generators(dl_manager).items()]
        self.info.set_splits(tfds.core.splits.SplitDict(infos))

    def _written(self, split: str, examples: Iterable[tuple[int, dict]]) -> tfds.core.SplitInfo:
        features = self.info.features
        serializer = ExampleSerializer(features.get_serialized_info())
        template = ShardedFileTemplate(
            data_dir=self.data_path,
            dataset_name=self.name,
            split=split,
            filetype_suffix="array_record",
            template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}",  # how many there will be isn't known yet
        )
        rows = (serializer.serialize_example(features.encode_example(example)) for _, example in examples)
        lengths, total = [], 0
        for first in rows:
            path = template.sharded_filepath(shard_index=len(lengths), num_shards=None)
            length, size = _write_shard(str(path), itertools.chain([first], rows))
            lengths.append(length)
            total += size
        return tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=total, filename_template=template)

    def _generate_examples(self):
        raise NotImplementedError  # TFDS wants it defined; `_split_generators` has the examples


def _write_shard(path: str, rows: Iterable[bytes]) -> tuple[int, int]:
    """(rows, bytes) written, until there are `SHARD_BYTES` or no more rows. Raises `OSError` for a full disk."""
    length, size = 0, 0
    with record_writer(path) as writer:
        for row in rows:
            writer.write(row)
            length, size = length + 1, size + len(row)
            if size >= SHARD_BYTES:
                break
    return length, size
