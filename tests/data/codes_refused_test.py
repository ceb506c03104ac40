"""Caches of codes that are refused: damaged, or of another run."""

import dataclasses
import hashlib
import json
import shutil

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests.data import noise
from vim_tf import config as config_lib
from vim_tf import presets
from vim_tf.data import codes as codes_lib
from vim_tf.data import errors


def _stage2(**data) -> config_lib.Stage2Config:
  config = presets.stage2('tiny')
  model = dataclasses.replace(
    config.model, grid_size=noise.GRID, codebook_size=noise.CODES, num_classes=3
  )
  return dataclasses.replace(config, model=model, data=noise.data(**data))


class RefusedTest(noise.TestCase):
  def _assert_refused(self, text):
    with self.assertRaisesRegex(errors.DataError, text) as caught:
      codes_lib.Cache(self._new).check_files()
    self.assertNotIn('\n', str(caught.exception))

  def test_not_a_cache(self):
    self._assert_refused('is not a cache of codes')
    self._new.mkdir()
    self._assert_refused('is not a cache of codes')
    manifest = self._new / 'manifest.json'
    for content, text in (
      (b'{', 'Cannot read'),
      (b'\xff\xfe', 'Cannot read'),
      (b'[]', 'of format None'),
      (b'{"format": 99}', 'of format 99, but 2 can be read'),
      (b'{"format": 1}', 'of format 1 .codes in TFRecords., .* encode the'),
      (b'{"format": 2}', "damaged .KeyError: 'data'"),
    ):
      manifest.write_bytes(content)
      self._assert_refused(text)

  def test_damaged_manifest(self):
    shutil.copytree(self.cache.path, self._new)
    file = self._new / 'manifest.json'
    whole = json.loads(file.read_text())
    for change, text in (
      (lambda m: m['splits'].pop('evaluation'), "'evaluation'"),
      (lambda m: m.update(grid_size='three'), 'damaged'),
      (lambda m: m.update(grid_size=4), r'train-codes-.* not <u2 .3, 16, 16.'),
      (lambda m: m.update(codebook_size=2**17), 'not <i4 .3, 16, 9.'),
      (lambda m: m['data'].update(what=1), 'has no setting what'),
      (lambda m: m['splits']['train'].update(examples=42), '41 of 42 examples'),
      (lambda m: m['splits']['train'].update(examples=0), '41 of 0 examples'),
      (lambda m: m['splits']['train'].update(crops=2), 'not <u2 .2, 16, 9.'),
      (lambda m: m['splits']['train']['shards'].pop(), '32 of 41 examples'),
      (
        lambda m: m['splits']['train']['shards'][1].update(examples=15),
        'train-codes-00001-of-00003.npy cannot be used .*not <u2 .3, 15, 9.',
      ),
    ):
      manifest = json.loads(json.dumps(whole))
      change(manifest)
      file.write_text(json.dumps(manifest))
      self._assert_refused(text)

  @parameterized.parameters('codes', 'labels', 'indices')
  def test_damaged_files(self, kind):
    shutil.copytree(self.cache.path, self._new)
    path = self._new / f'train-{kind}-00002-of-00003.npy'
    content = path.read_bytes()
    for short in (content[:-1], content[:20], b''):
      path.write_bytes(short)
      self._assert_refused(f'{path} .*cut short or changed, {len(short)} bytes')
    path.write_bytes(bytes(len(content)))
    self._assert_refused(f'{path} cannot be used .*magic')
    path.unlink()
    self._assert_refused(f'{path} cannot be used .No such file')
    for place in (len(content) - 1, 140):
      changed = bytearray(content)
      changed[place] ^= 1
      path.write_bytes(changed)
      self._assert_refused(f'^{path} is damaged: its hash')
    path.write_bytes(content)
    codes_lib.Cache(self._new).check_files()

  @parameterized.parameters(
    ('codes', noise.CODES, r'codes range from \d+ to 32, but .* \[0, 32\)'),
    ('labels', 3, r'labels range from \d+ to 3, but .* \[0, 3\)'),
    ('labels', -1, 'labels range from -1'),
  )
  def test_files_made_by_hand(self, kind, value, text):
    """Their hashes are right, what is in them is not."""
    shutil.copytree(self.cache.path, self._new)
    path = self._new / f'train-{kind}-00001-of-00003.npy'
    array = np.load(path)
    array.flat[-1] = value
    np.save(path, array)
    file = self._new / 'manifest.json'
    manifest = json.loads(file.read_text())
    entry = manifest['splits']['train']['shards'][1][kind]
    entry['sha256'] = hashlib.sha256(path.read_bytes()).hexdigest()
    file.write_text(json.dumps(manifest))
    self._assert_refused(f'train-codes-00001-of-00003.npy .*{text}')

  def test_another_run(self):
    self.cache.check_fits(_stage2(), noise.TOKENIZER)
    self.cache.check_fits(
      _stage2(data_dir='elsewhere', balance_classes=True), noise.TOKENIZER
    )
    right = dataclasses.replace(_stage2(), label_drop=0.0)

    def model(**changes):
      return dataclasses.replace(
        right, model=dataclasses.replace(right.model, **changes)
      )

    for config, fingerprint, text in (
      (right, 'a0', 'another tokenizer: fingerprint .* is f1f2, but a0'),
      (model(codebook_size=64), noise.TOKENIZER, 'codebook_size is 32, but 64'),
      (model(grid_size=4), noise.TOKENIZER, 'grid_size is 3, but 4'),
      (model(num_classes=9), noise.TOKENIZER, 'of 3 classes, but .* is 9'),
      (_stage2(crop='center'), noise.TOKENIZER, '--set=data.crop=shift,'),
      (
        _stage2(flip=False, max_shift=1),
        noise.TOKENIZER,
        '--set=data.max_shift=2 --set=data.flip=true',
      ),
    ):
      with self.assertRaisesRegex(errors.DataError, text):
        self.cache.check_fits(config, fingerprint)
    self.cache.check_fits(model(num_classes=0), noise.TOKENIZER)


if __name__ == '__main__':
  tf.test.main()
