"""Tests that the Beam pipeline writes what the single process writes.

It needs the packages of requirements-beam.lock, and is run by hand.
"""

import json
import pathlib
import shutil
import tempfile

import tensorflow as tf

from tests.experiments import tiny_runs
from vim_tf.data import codes as codes_lib
from vim_tf.data import errors
from vim_tf.jobs import encode as encode_job
from vim_tf.jobs import encode_beam, restore

_CROPS = 3
_BATCH = 4
_SHARD = 1  # Byte: as many files as there are batches.


class BeamEncodingTest(tf.test.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(tempfile.mkdtemp(dir=self.get_temp_dir()))
    tiny_runs.make_images(self.root / 'images')
    tiny_runs.make_tokenizer(self.root / 'tokenizer', self.root / 'images')
    tokenizer = restore.tokenizer(self.root / 'tokenizer')
    encode_job.encode(
      tokenizer,
      self.root / 'single',
      crops=_CROPS,
      seed=5,
      batch_size=_BATCH,
      shard_bytes=_SHARD,
    )
    self.job = encode_beam.Job(
      str(self.root / 'tokenizer'),
      tokenizer.config.data,
      str(self.root / 'beam'),
      _CROPS,
      5,
      _BATCH,
      _SHARD,
    )

  def test_byte_for_byte(self):
    encode_beam.encode(self.job)
    single, found = self.root / 'single', self.root / 'beam'
    names = sorted(path.name for path in single.iterdir())
    self.assertGreater(len(names), 6)
    self.assertEqual(sorted(path.name for path in found.iterdir()), names)
    for name in names:
      self.assertEqual(
        (found / name).read_bytes(), (single / name).read_bytes()
      )
    manifest = json.loads((found / codes_lib.MANIFEST).read_text())
    self.assertEqual(manifest['crops_per_image'], _CROPS)
    codes_lib.Cache(found).check_files()

  def test_an_old_folder_stays(self):
    shutil.copytree(self.root / 'single', self.root / 'beam')
    with self.assertRaisesRegex(errors.DataError, 'exists already'):
      encode_beam.encode(self.job)


if __name__ == '__main__':
  tf.test.main()
