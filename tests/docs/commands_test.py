"""Runs every command of the documents and docstrings, made short.

A command that a page gains is run, too, or it has its place in `elsewhere`.
"""

import json
import pathlib
import re
import tempfile
import urllib.request

from absl.testing import absltest
from packaging import requirements
import tensorboard.program

from tests import testing
from tests.docs import elsewhere, pages, walk
from vim_tf.training import workdir as workdir_lib


class CommandsTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.enterClassContext(testing.eagerly())
    root = cls.enterClassContext(tempfile.TemporaryDirectory())
    cls.walk = walk.Walk(pathlib.Path(root))
    cls.commands = pages.everything()

  def test_1_every_command_is_run_or_has_a_reason(self):
    ran = set()
    for command in self.commands:
      if elsewhere.find(command) or command.verb == 'test':
        continue
      with self.subTest(str(command)):
        if command.folder in ('experiments', 'export'):
          if self.walk.run(command):
            ran.add(command.name)
        elif command.name == 'tensorboard' or command.text.startswith(
          'tensorboard '
        ):
          self._check_tensorboard(command)
        else:
          self.walk.shell(command)
    # Whatever is run elsewhere: most are run here.
    self.assertContainsSubset(
      {
        *('average_probes', 'benchmark', 'draw_curves', 'encode_dataset'),
        *('evaluate', 'import_checkpoint', 'lowering', 'prepare_images'),
        *('probe', 'sample', 'sampler', 'sampling_study', 'tokenizer'),
        *('train_probe', 'train_vim', 'train_vit_vqgan'),
      },
      ran,
    )

  def _check_tensorboard(self, command: pages.Command):
    """Starts TensorBoard, which would not end, and asks it for its runs."""
    flags = command.arguments or tuple(command.text.split()[1:])
    (flag,) = flags
    name, _, logdir = flag.partition('=')
    with self.walk.at(command.file) as folder:
      server = tensorboard.program.TensorBoard()
      logdir = f'{folder}/{logdir.lstrip("/")}'
      server.configure(
        argv=[
          *('', f'{name}={logdir}', '--port=0'),
          *('--load_fast=false', '--reload_interval=0'),
        ]
      )
      url = server.launch()
      opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
      with opener.open(f'{url}data/environment') as answer:
        shown = json.load(answer)
      self.assertEqual(shown['data_location'], logdir)
      files = list(pathlib.Path(logdir).rglob('events.out.*'))
      self.assertNotEmpty(files, 'Nothing is there to watch.')

  # ------------------------------------------------------- what they have made
  def test_2_what_is_trained_is_what_the_flags_say(self):
    folder = self.walk.folder('docs/stage1.md')
    rows = workdir_lib.read_metrics(folder / 'runs' / 'full')
    names = set().union(*rows)
    # Every kind of step was met.
    for name in ('perceptual', 'adversarial', 'codes_replaced'):
      self.assertIn(name, names)
    record = workdir_lib.read(folder / 'runs' / 'full')
    self.assertEqual(record['config']['run']['precision'], 'bfloat16')
    record = workdir_lib.read(
      self.walk.folder('docs/reproduction.md') / 'runs' / 'vim_large'
    )
    self.assertEqual(record['config']['data']['name'], 'imagenet2012')
    self.assertEqual(record['config']['model']['num_classes'], 1000)

  def test_2_the_lock_of_a_tpu_has_all_but_tensorflow(self):
    folder = self.walk.folder('docs/tpu.md')
    locks = [
      re.sub(r'(?m)^\s*#.*\n?', '', (folder / name).read_text())
      for name in ('requirements.lock', 'without-tensorflow.lock')
    ]
    whole, left = (
      {
        requirements.Requirement(part.split()[0]).name: part.split()[1:]
        for part in re.sub(r'\\\n', ' ', lock).splitlines()
        if part.strip()
      }
      for lock in locks
    )
    self.assertContainsSubset(
      {'numpy', 'tensorflow', 'tensorflow-datasets'}, whole
    )
    del whole['tensorflow']
    self.assertEqual(left, whole)


if __name__ == '__main__':
  absltest.main()
