"""Tests of `evaluate --job=generation` and of the sampling study."""

import json
import pathlib
import shutil

from absl.testing import parameterized
import numpy as np
from PIL import Image
import tensorflow as tf

from tests import testing
from tests.experiments import running, tiny_runs
from vim_tf.jobs import references
from vim_tf.metrics import generation
from vim_tf.training import workdir as workdir_lib

_COUNT = 11
_NAME = 'file_means'


def _read(paths) -> np.ndarray:
  return np.stack([np.asarray(Image.open(path)) for path in paths]) / 255.0


class GenerationTest(running.Refused, parameterized.TestCase, tf.test.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.root = testing.new_folder('generation')
    shared = tiny_runs.shared()
    cls.images, cls.tokenizer = shared.images, shared.tokenizer
    cls.vim = cls.root / 'vim'  # Where a head is kept, too.
    shutil.copytree(shared.vim, cls.vim)
    tf.saved_model.save(tiny_runs.Brightness(), str(cls.root / 'brightness'))
    tf.saved_model.save(tiny_runs.Means(2), str(cls.root / 'means'))
    shutil.copytree(cls.root / 'means', cls.root / 'copy')
    tf.saved_model.save(tiny_runs.Means(4), str(cls.root / 'fine'))
    cls.binary = running.Binary('evaluate')
    cls.sample = running.Binary('sample')
    cls.study = running.Binary('studies.sampling')
    cls.network = f'--network=file:{cls.root}/means'
    cls.reference = cls.root / 'reference.npz'
    cls.out = cls.root / 'out'
    result = cls._evaluate(
      f'--out={cls.out}', f'--save_reference={cls.reference}'
    )
    assert result.status == 0, result.error
    # The graphs are those of the first call, whose figures all must equal.
    cls.enter_context(testing.eagerly())
    cls.text = (cls.out / 'figures.json').read_text()
    cls.result = json.loads(cls.text)
    cls.figures, cls.protocol = cls.result['figures'], cls.result['protocol']

  @classmethod
  def _evaluate(cls, *arguments):
    return cls.binary.run(
      '--job=generation',
      f'--workdir={cls.vim}',
      cls.network,
      f'--num_samples={_COUNT}',
      '--seed=5',
      '--top_k=20',
      '--batch_size=4',
      *arguments,
    )

  def _again(self, *arguments) -> dict:
    out = pathlib.Path(self.create_tempdir()) / 'new'
    result = self._evaluate(f'--out={out}', *arguments)
    self.assertEqual(result.status, 0, result.error)
    return json.loads((out / 'figures.json').read_text())

  def _samples(self) -> tuple[np.ndarray, np.ndarray]:
    """The same samples, drawn by the other binary: 7 of one class, then 4."""
    images, labels = [], []
    for class_id, seed, count in ((0, 5, 7), (1, 12, 4)):
      out = pathlib.Path(self.create_tempdir()) / 'new'
      result = self.sample.run(
        f'--workdir={self.vim}',
        f'--out={out}',
        f'--classes={class_id}',
        f'--seed={seed}',
        f'--count={count}',
        '--top_k=20',
      )
      self.assertEqual(result.status, 0, result.error)
      rows = workdir_lib.read_json(out / 'samples.json')['samples']
      images.append(_read(out / row['file'] for row in rows))
      labels += [class_id] * count
    return np.concatenate(images), np.array(labels)

  # ---------------------------------------------------------------- figures

  def test_figures_are_those_of_the_samples(self):
    samples, labels = self._samples()
    real = _read(sorted((self.images / 'train').glob('*/*.png')))
    features = tiny_runs.means(samples, 2)
    self.assertAllClose(
      self.figures[f'gfd_{_NAME}'],
      generation.frechet_distance(tiny_runs.means(real, 2), features),
      rtol=0.02,
    )
    self.assertAllClose(
      self.figures[f'is_{_NAME}'],
      generation.classifier_score(3.0 * features[:, :4]),
      rtol=1e-3,
    )
    recognition = self.figures['recognition']
    self.assertEqual(recognition['images_by_class'], {'bright': 7, 'dark': 4})
    with np.load(self.vim / 'classifiers' / f'{_NAME}.npz') as head:
      logits = features @ head['kernel'] + head['bias']
    self.assertAllClose(
      np.log(self.figures[f'class_score_{_NAME}']),
      np.log(generation.classifier_score(logits)),
      rtol=0.01,
      atol=1e-9,
    )
    found = np.argmax(logits, axis=1)
    for i, name in enumerate(tiny_runs.CLASSES):
      self.assertAllClose(
        recognition['by_class'][name], np.mean(found[labels == i] == i)
      )

  def test_real_images_stand_beside(self):
    held_out = _read(sorted((self.images / 'validation').glob('*/*.png')))
    real = _read(sorted((self.images / 'train').glob('*/*.png')))
    self.assertAllClose(
      self.figures[f'held_out_gfd_{_NAME}'],
      generation.frechet_distance(
        tiny_runs.means(real, 2), tiny_runs.means(held_out, 2)
      ),
      rtol=0.02,
      atol=1e-4,
    )
    self.assertEqual(self.figures['held_out_recognition']['accuracy'], 1.0)
    with np.load(self.vim / 'classifiers' / f'{_NAME}.npz') as head:
      logits = tiny_runs.means(held_out, 2) @ head['kernel'] + head['bias']
    self.assertAllClose(  # Of this weak a head, the score is hardly above 1.
      np.log(self.figures[f'held_out_class_score_{_NAME}']),
      np.log(generation.classifier_score(logits)),
      rtol=0.01,
      atol=1e-9,
    )
    self.assertEqual(self.figures['held_out_images'], sum(tiny_runs.HELD_OUT))
    self.assertIn('accuracy', self.figures['reconstructed_recognition'])
    self.assertEqual(
      self.figures[f'floor_images_{_NAME}'], sum(tiny_runs.TRAIN) // 2
    )
    for prefix in ('g', 'held_out_g', 'reconstructed_g', 'floor_'):
      for score in ('fd', 'kd', 'precision', 'recall'):
        self.assertTrue(np.isfinite(self.figures[f'{prefix}{score}_{_NAME}']))

  def test_protocol(self):
    self.assertEqual(self.text.count('\n'), 1)
    found = self.protocol
    self.assertEqual(self.result['job'], 'generation')
    self.assertEqual(found['num_samples'], _COUNT)
    self.assertEqual(found['num_candidates'], _COUNT)
    self.assertEqual(found['seed'], 5)
    self.assertEqual(found['sampling']['top_k'], 20)
    self.assertEqual(found['sampling']['guidance_schedule'], 'constant')
    self.assertEqual(found['reference']['split'], 'train')
    self.assertEqual(found['reference']['count'], sum(tiny_runs.TRAIN))
    self.assertEqual(found['reference']['crop'], 'center 16')
    self.assertEqual(found['precision'], 'float32')
    self.assertRegex(found['network_source'], '^sha256:')
    self.assertEqual(found['vim_step'], tiny_runs.STEP)

  def _assert_same_figure(self, found, expected, name):
    if expected is None:  # Nothing to estimate it from.
      self.assertIsNone(found, name)
    else:
      self.assertAllClose(found, expected, rtol=1e-3, atol=1e-5, msg=name)

  def test_galleries(self):
    self.assertEqual(
      sorted(path.name for path in self.out.iterdir()),
      ['class-0000.png', 'class-0001.png', 'figures.json'],
    )
    with Image.open(self.out / 'class-0001.png') as file:
      self.assertEqual(file.size, (8 * 18 + 2, 18 + 2 + 14))

  def test_batches_and_a_saved_reference_change_no_figure(self):
    again = self._again(f'--reference={self.reference}', '--batch_size=8')
    found = workdir_lib.flat(again['figures'])
    for name, value in workdir_lib.flat(self.figures).items():
      self._assert_same_figure(found[name], value, name)
    self.assertEqual(again['protocol']['reference'], self.protocol['reference'])

  def test_another_split_and_mix(self):
    again = self._again('--reference_split=validation', '--class_mix=equal')
    self.assertEqual(again['protocol']['reference']['split'], 'validation')
    self.assertEqual(
      again['figures']['recognition']['images_by_class'],
      {'bright': 6, 'dark': 5},
    )
    self.assertAllClose(again['figures'][f'held_out_gfd_{_NAME}'], 0, atol=1e-3)

  # ------------------------------------------------------- rejection, study

  def _figures_of(self, point: dict) -> dict:
    settings = ('guidance_scale', 'acceptance', 'num_candidates', 'sets')
    return workdir_lib.flat(
      {key: value for key, value in point.items() if key not in settings}
    )

  def test_rejection_and_the_study(self):
    """The study's points are what `evaluate` says of the same settings."""
    classifier = f'--classifier=file:{self.root}/brightness'
    at_once = f'--batch_size={2 * _COUNT}'
    rejected = self._again('--acceptance=0.5', classifier, at_once)
    self.assertEqual(rejected['protocol']['num_candidates'], 22)
    self.assertEqual(
      rejected['protocol']['classifier'], f'file:{self.root}/brightness'
    )
    guided = self._again('--guidance_scale=2', at_once)
    out = pathlib.Path(self.create_tempdir()) / 'study'
    result = self.study.run(
      f'--workdir={self.vim}',
      f'--out={out}',
      self.network,
      classifier,
      f'--num_samples={_COUNT}',
      '--seed=5',
      '--top_k=20',
      at_once,
      '--guidance_scales=1,2',
      '--acceptance_rates=1,0.5',
      '--num_sets=2',
    )
    self.assertEqual(result.status, 0, result.error)
    study = workdir_lib.read_json(out / 'study.json')
    with Image.open(out / 'study.png') as file:
      self.assertGreater(np.asarray(file).std(), 1.0)
    # The seeds of a set are as many as the candidates of the lowest rate.
    second = 5 + 2 * _COUNT
    self.assertEqual(study['protocol']['seeds'], [5, second])
    again = self._again(
      f'--seed={second}', '--acceptance=0.5', classifier, at_once
    )
    for point, expected in (
      (study['guidance'][0], self.figures),
      (study['guidance'][1], guided['figures']),
      (study['acceptance'][0], self.figures),
      (study['acceptance'][1], rejected['figures']),
    ):
      first = self._figures_of(point)
      first.update({name: of[0] for name, of in point['sets'].items()})
      expected = workdir_lib.flat(expected)
      self.assertContainsSubset({f'gfd_{_NAME}', 'recognition.accuracy'}, first)
      for name, value in first.items():
        if 'by_class' not in name:  # Their means alone are kept.
          self._assert_same_figure(value, expected[name], name)
    firsts, seconds = (
      workdir_lib.flat(one['figures']) for one in (rejected, again)
    )
    for name, value in self._figures_of(study['acceptance'][1]).items():
      both = firsts[name], seconds[name]
      mean = None if None in both else np.mean(both)
      self._assert_same_figure(value, mean, name)
    # The classifier finds the brightest and the darkest, and so does a head.
    self.assertGreaterEqual(
      rejected['figures']['recognition']['accuracy'],
      self.figures['recognition']['accuracy'],
    )
    self.assertEqual(study['protocol']['classifier'], classifier[13:])

  # --------------------------------------------------------------- refusals

  @parameterized.named_parameters(
    (
      'one_network_for_both',
      ['--acceptance=0.5', '--classifier=head:file:{root}/means'],
      ['selects', 'scores', 'choose another'],
    ),
    (
      'the_same_under_another_name',
      ['--acceptance=0.5', '--classifier=head:file:{root}/copy'],
      ['selects', 'scores', 'choose another'],
    ),
    (
      'flag_of_another_job',
      ['--noperceptual'],
      ['--perceptual belongs to --job=reconstruction', 'leave it out'],
    ),
    ('mix', ['--acceptance=1.5'], ['acceptance is 1.5']),
    ('temperature', ['--temperature=nan'], ['temperature is nan']),
    (
      'reference_of_another_network',
      ['--reference={reference}', '--network=file:{root}/fine'],
      ['file_means', 'file_fine', 'make them again'],
    ),
    ('no_reference', ['--reference=/none.npz'], ['/none.npz']),
    (
      'reference_and_split',
      ['--reference={reference}', '--reference_split=train'],
      ['leave out'],
    ),
    ('nowhere_to_save', ['--save_reference=/none/a.npz'], ['Cannot write']),
    ('no_network', ['--network=vgg'], ["no feature network 'vgg'"]),
    ('other_data', ['--data=folder:{root}/others'], ['not those of the model']),
    ('out_exists', ['--out={out}'], ['exists already']),
  )
  def test_refuses(self, arguments, texts):
    others = self.root / 'others'
    if not others.exists():
      shutil.copytree(self.images, others)
      for split in ('train', 'validation'):
        (others / split / 'dark').rename(others / split / 'dull')
    result = self._evaluate(
      f'--out={self._new}',
      *(argument.format(**vars(type(self))) for argument in arguments),
    )
    self._assert_refused(result, *texts)

  def test_refuses_flags_of_samples_for_reconstructions(self):
    result = self.binary.run(
      f'--workdir={self.tokenizer}', f'--out={self._new}', '--top_k=3'
    )
    self._assert_refused(result, '--top_k belongs to --job=generation')

  def test_study_refuses(self):
    for arguments, text in (
      (['--guidance_scales=1,much'], '--guidance_scales is 1,much'),
      (['--guidance_scales=-1'], 'guidance_scale is -1'),
      (['--acceptance_rates=0'], 'acceptance is 0'),
      (['--acceptance=0.5'], '--acceptance_rates'),
      (
        [self.network, f'--classifier=head:file:{self.root}/copy'],
        'choose another',
      ),
      # Which is told before anything is read.
      (['--out=/proc/new', '--workdir=/none'], 'Cannot write to --out=/proc'),
    ):
      result = self.study.run(
        f'--workdir={self.vim}', f'--out={self._new}', *arguments
      )
      self._assert_refused(result, text)


class SpreadTest(tf.test.TestCase):
  def test_largest_remainders(self):
    found = references.spread(10, 3, np.array([1, 1, 2]))
    self.assertAllEqual(np.bincount(found), [3, 2, 5])
    self.assertAllEqual(found, np.sort(found))
    self.assertAllEqual(references.spread(7, 3, None), [0, 0, 0, 1, 1, 2, 2])
    self.assertAllEqual(references.spread(3, 0, None), [0, 0, 0])
    self.assertAllEqual(references.spread(4, 2, np.array([0, 9])), [1] * 4)


if __name__ == '__main__':
  tf.test.main()
