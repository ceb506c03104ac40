"""Tests of `sample`: completion, rejection, drawing again, refusals."""

import json
import pathlib
import shutil
from unittest import mock

from absl.testing import parameterized
import numpy as np
from PIL import Image
import tensorflow as tf

from tests import testing
from tests.experiments import running, tiny_runs
from vim_tf.data import images as images_lib
from vim_tf.jobs import restore
from vim_tf.training import workdir as workdir_lib
from vim_tf.vit_vqgan import model as model_lib

_COUNT = 3
_GRID = 4


class SampleTest(running.Refused, parameterized.TestCase, tf.test.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.root = testing.new_folder('sample')
    shared = tiny_runs.shared()
    cls.images, cls.tokenizer = shared.images, shared.tokenizer
    cls.unconditional = shared.unconditional
    cls.vim = cls.root / 'vim'  # Where a head is kept, too.
    shutil.copytree(shared.vim, cls.vim)
    tf.saved_model.save(tiny_runs.Brightness(), str(cls.root / 'brightness'))
    tf.saved_model.save(tiny_runs.Means(2), str(cls.root / 'means'))
    cls.photo = cls.root / 'photo.png'
    pixels = np.random.default_rng(0).integers(0, 256, [20, 31, 3], np.uint8)
    Image.fromarray(pixels).save(cls.photo)
    cls.binary = running.Binary('sample')
    cls.out = cls.root / 'out'
    result = cls._sample(
      f'--out={cls.out}',
      f'--count={_COUNT}',
      '--batch_size=4',
      '--temperature=1.1',
      '--top_k=9',
      '--top_p=0.95',
      '--guidance_scale=2',
      '--guidance_schedule=linear',
      f'--complete={cls.photo}',
      '--keep_rows=2',
      '--acceptance=0.4',
      f'--classifier=file:{cls.root}/brightness',
    )
    assert result.status == 0, result.error
    # The graphs are those of the first call, whose images others draw again.
    cls.enter_context(testing.eagerly())
    cls.record = workdir_lib.read_json(cls.out / 'samples.json')

  @classmethod
  def _sample(cls, *arguments):
    return cls.binary.run(f'--workdir={cls.vim}', *arguments)

  def _draw(self, *arguments) -> dict:
    new = pathlib.Path(self.create_tempdir()) / 'new'
    result = self._sample(f'--out={new}', *arguments)
    self.assertEqual(result.status, 0, result.error)
    return workdir_lib.read_json(new / 'samples.json')

  # ------------------------------------------------------------- completion

  def test_top_rows_are_those_of_the_image(self):
    model = restore.tokenizer(self.tokenizer).model
    image = images_lib.decode(tf.io.read_file(str(self.photo)))
    image = images_lib.resize(images_lib.center_crop(image), tiny_runs.SIZE)
    image = images_lib.to_uint8(image)
    with Image.open(self.out / 'original.png') as file:
      self.assertAllEqual(file, image)
    codes = model.encode(images_lib.from_uint8(image)[None])[0].numpy()
    drawn = np.array([row['codes'] for row in self.record['samples']])
    kept = 2 * _GRID
    self.assertAllEqual(drawn[:, :kept], np.tile(codes[:kept], [6, 1]))
    self.assertEqual(self.record['prefix'], codes[:kept].tolist())
    self.assertGreater(len(np.unique(drawn[:, kept:], axis=0)), 3)

  def test_all_rows_kept_is_the_reconstruction(self):
    record = self._draw(
      f'--complete={self.photo}', '--keep_rows=4', '--count=1', '--classes=0'
    )
    (row,) = record['samples']
    self.assertEqual(row['codes'], record['prefix'])

  def test_no_row_kept_is_plain_sampling(self):
    flags = ['--count=2', '--classes=1', '--seed=3']
    plain = self._draw(*flags)
    kept = self._draw(*flags, f'--complete={self.photo}', '--keep_rows=0')
    self.assertEqual(kept['samples'], plain['samples'])

  # -------------------------------------------------------------- rejection

  def test_the_likeliest_of_all_candidates_are_kept(self):
    rows = self.record['samples']
    self.assertEqual(self.record['num_candidates'], 2 * 8)
    self.assertEqual(self.record['acceptance'], 0.4)
    for class_id in (0, 1):
      own = [row for row in rows if row['class_id'] == class_id]
      found = [row['probability'] for row in own]
      self.assertEqual(found, sorted(found, reverse=True))
      for row in own:  # By the file itself, and not by what was noted.
        with Image.open(self.out / row['file']) as file:
          mean = np.asarray(file).mean() / 255
        likely = mean if class_id == 0 else 1 - mean
        self.assertAllClose(row['probability'], likely, atol=0.01)
    # Drawn without rejection, no other candidate is likelier.
    everything = self._draw(
      '--count=3',
      '--temperature=1.1',
      '--top_k=9',
      '--top_p=0.95',
      '--guidance_scale=2',
      '--guidance_schedule=linear',
      f'--complete={self.photo}',
      '--keep_rows=2',
    )
    first = {row['seed']: row for row in everything['samples']}
    again = [row for row in rows if row['seed'] in first]
    for row in again:
      self.assertEqual(row['codes'], first[row['seed']]['codes'])

  def test_a_head_is_trained_once_and_kept(self):
    head = self.vim / 'classifiers' / 'file_means.npz'
    flags = [
      '--count=1',
      '--acceptance=0.5',
      f'--classifier=head:file:{self.root}/means',
    ]
    record = self._draw(*flags)
    self.assertEqual(record['classifier'], 'head:file_means')
    with np.load(head) as arrays:
      facts = json.loads(str(arrays['protocol']))
    self.assertEqual(facts['train_images'], sum(tiny_runs.TRAIN))
    self.assertEqual(facts['held_out']['accuracy'], 1.0)
    before = head.stat().st_mtime_ns
    self.assertEqual(self._draw(*flags)['samples'], record['samples'])
    self.assertEqual(head.stat().st_mtime_ns, before)

  # ------------------------------------------------------------- once again

  def test_an_empty_folder_is_taken(self):
    self._new.mkdir()
    result = self._sample(f'--out={self._new}', '--count=1', '--classes=0')
    self.assertEqual(result.status, 0, result.error)

  def test_json_makes_the_same_files(self):
    with self.assertNoLogs('absl', 'WARNING'):
      result = self._sample(
        f'--out={self._new}', f'--from_json={self.out}/samples.json'
      )
    self.assertEqual(result.status, 0, result.error)
    expected = running.snapshot(self.out)
    del expected['original.png']
    self.assertEqual(running.snapshot(self._new), expected)

  def test_each_batch_is_decoded_once(self):
    decode, sizes = model_lib.ViTVQGAN.decode, []

    def counted(model, codes):
      sizes.append(len(codes))
      return decode(model, codes)

    flags = ['--batch_size=4', '--count=3']
    select = [
      '--acceptance=0.5',
      f'--classifier=file:{self.root}/brightness',
    ]
    for arguments, batches in ((flags, [3, 3]), ([*flags, *select], [4] * 3)):
      sizes.clear()
      with mock.patch.object(model_lib.ViTVQGAN, 'decode', counted):
        self._draw(*arguments)
      self.assertEqual(sizes, batches)

  def test_json_with_other_codes_is_told(self):
    record = {**self.record, 'samples': [dict(self.record['samples'][0])]}
    record['samples'][0]['codes'] = [0] * _GRID**2
    file = self.create_tempfile(content=json.dumps(record)).full_path
    with self.assertLogs('absl', 'WARNING') as logs:
      result = self._sample(f'--out={self._new}', f'--from_json={file}')
    self.assertEqual(result.status, 0, result.error)
    self.assertIn('1 of 1 images', logs.output[0])

  # --------------------------------------------------- warnings and refusals

  def test_guidance_that_was_not_learned(self):
    """It draws nevertheless: the weights are what they are."""
    path = self.root / 'never_dropped'
    shutil.copytree(self.vim, path)
    file = path / 'config.json'
    record = json.loads(file.read_text())
    record['config']['label_drop'] = 0.0
    file.write_text(json.dumps(record))
    for scale, expected in ((2, True), (1, False)):
      result = self._sample(
        f'--out={self._new}-{scale}',
        f'--workdir={path}',
        '--count=1',
        f'--guidance_scale={scale}',
      )
      self.assertEqual(result.status, 0, result.error)
      self.assertEqual("never met 'no class'" in result.error, expected)

  @parameterized.named_parameters(
    ('rows_beyond', ['--complete={photo}', '--keep_rows=5'], ['5', '0 to 4']),
    ('negative_rows', ['--complete={photo}', '--keep_rows=-1'], ['0 to 4']),
    ('no_rows', ['--complete={photo}'], ['--keep_rows']),
    ('no_image', ['--keep_rows=1'], ['--complete']),
    ('not_an_image', ['--complete={text}', '--keep_rows=1'], ['not an image']),
    ('no_file', ['--complete=/none.png', '--keep_rows=1'], ['/none.png']),
    ('a_folder', ['--complete={images}', '--keep_rows=1'], ['Cannot read']),
    ('temperature', ['--temperature=nan'], ['temperature is nan']),
    ('class', ['--classes=grey'], ["'grey'", 'bright, dark']),
    ('acceptance_2', ['--acceptance=2'], ['acceptance is 2', '(0, 1]']),
    (
      'nothing_rejected',
      ['--classifier=resnet101'],
      ['--acceptance is 1', 'below 1'],
    ),
    (
      'no_classifier',
      ['--acceptance=0.5', '--classifier=vgg'],
      ["'vgg'", 'head:NETWORK, resnet101, resnet101:PATH or file:PATH'],
    ),
    (
      'other_classes',
      ['--acceptance=0.5', '--classifier=file:{root}/means'],
      ['4 classes', 'model has 2'],
    ),
    (
      'json_and_flags',
      ['--from_json={out}/samples.json', '--count=2'],
      ['--count is said by --from_json'],
    ),
    ('out_cannot_be', ['--out=/proc/new'], ['Cannot write to --out=/proc']),
    ('no_json', ['--from_json=/none.json'], ['/none.json']),
    ('text_as_json', ['--from_json={text}'], ['no samples.json']),
    ('other_json', ['--from_json={vim}/config.json'], ['no samples.json']),
    (
      'other_codebook',
      ['--tokenizer={root}/wide'],
      ['codebook_size', '64', '32'],
    ),
    (
      'other_model',
      ['--from_json={out}/samples.json', '--workdir={root}/other'],
      ['another model', 'vim_fingerprint'],
    ),
    (
      'unconditional',
      ['--acceptance=0.5', '--workdir={unconditional}'],
      ['no classes'],
    ),
  )
  def test_refuses(self, arguments, texts):
    text = self.root / 'text.png'
    text.write_text('no image')
    for name, make in {
      'wide': lambda path: tiny_runs.make_tokenizer(
        path, self.images, **{'model.codebook_size': '64'}
      ),
      'other': lambda path: tiny_runs.make_vim(
        path, self.images, self.tokenizer, seed=1
      ),
    }.items():
      needed = any(f'{{root}}/{name}' in argument for argument in arguments)
      if needed and not (self.root / name).exists():
        make(self.root / name)
    result = self._sample(
      f'--out={self._new}',
      *(
        argument.format(text=text, **vars(type(self))) for argument in arguments
      ),
    )
    self._assert_refused(result, *texts)


if __name__ == '__main__':
  tf.test.main()
