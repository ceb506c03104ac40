"""Working directories of tiny untrained models, and images to send to them."""

import io
import pathlib

import numpy as np
from PIL import Image
import tensorflow as tf

from tests import testing
from tests.experiments import tiny_runs
from vim_tf import config as config_lib
from vim_tf import presets
from vim_tf.jobs import restore
from vim_tf.probe import linear
from vim_tf.training import checkpoints
from vim_tf.training import workdir as workdir_lib
from vim_tf.vim import model as vim_model
from vim_tf.vit_vqgan import model as vit_vqgan_model

CLASSES = [
  'ash', 'birch', 'cedar', 'date', 'elm', 'fir', 'gum', 'holly', 'ivy',
]  # fmt: skip
STEP = tiny_runs.STEP
PROBE_BLOCK = 1


def tokenizer(path: pathlib.Path, seed: int = 0) -> pathlib.Path:
  """A stage-1 working directory with one checkpoint of random weights."""
  one_block = {'model.encoder.num_blocks': '1', 'model.decoder.num_blocks': '1'}
  config = config_lib.replace(presets.stage1('tiny'), one_block)
  model = vit_vqgan_model.ViTVQGAN(config.model)
  facts = {'class_names': CLASSES}
  tiny_runs.save(path, 'vit_vqgan', config, model, facts, seed)
  return path


def vim(
  path: pathlib.Path, tokenizer_path: pathlib.Path, seed: int = 1
) -> pathlib.Path:
  """A stage-2 working directory with one checkpoint of random weights."""
  config = config_lib.replace(
    presets.stage2('tiny'), {'tokenizer': str(tokenizer_path)}
  )
  model = vim_model.VIM(config.model)
  found = restore.fingerprint(restore.tokenizer(tokenizer_path).model)
  facts = {'class_names': CLASSES, 'tokenizer_fingerprint': found}
  tiny_runs.save(path, 'vim', config, model, facts, seed)
  return path


def probe(
  path: pathlib.Path, vim_path: pathlib.Path, seed: int = 2
) -> pathlib.Path:
  """The working directory of a probe of all blocks, with random weights."""
  stage2 = restore.vim(vim_path)
  config = config_lib.replace(
    presets.probe('tiny', stage2.config),
    {'vim': str(vim_path), 'block': 'all'},
  )
  facts = {'class_names': CLASSES}
  workdir_lib.Workdir(path, 'probe', config, facts)
  workdir_lib.write_json(
    path / 'figures.json', {'figures': {'best_block_by_seed': [PROBE_BLOCK]}}
  )
  names = ['block_0', 'block_1', 'pixels']
  facts['vim_fingerprint'] = restore.fingerprint(stage2.model)
  facts['penalties'] = {name: [0.1] for name in names}
  final = workdir_lib.Workdir(path / 'seed-0' / 'final', 'probe', config, facts)
  layers = {}
  for i, name in enumerate(names):
    layers[name] = linear.SoftmaxLayer(
      stage2.config.model.transformer.width, len(CLASSES), (0.1,)
    )
    layers[name].build()
    testing.randomize(layers[name], seed + i, 1.0)
  checkpoints.Checkpoints(final.checkpoints, layers).save(STEP)
  return path


def picture(seed: int, height: int = 20, width: int = 24) -> Image.Image:
  """A smooth random picture."""
  pixels = np.random.default_rng(seed).integers(0, 256, [4, 4, 3], np.uint8)
  return Image.fromarray(pixels).resize((width, height), Image.BICUBIC)


def encoded(image: Image.Image, kind: str = 'PNG', **kwargs) -> bytes:
  """The file of a picture."""
  file = io.BytesIO()
  image.save(file, kind, **kwargs)
  return file.getvalue()


def files(count: int) -> list[bytes]:
  """Files of different pictures, sizes and kinds."""
  kinds = ('PNG', 'JPEG')
  return [
    encoded(picture(i, 20 + i, 24), kinds[i % len(kinds)]) for i in range(count)
  ]


def pipeline_images(contents: list[bytes], folder: pathlib.Path, size: int):
  """The images of files by the evaluation path of training, `[count, ...]`."""
  from vim_tf.data import pipeline, sources

  extension = {b'\x89P': 'png', b'\xff\xd8': 'jpg'}
  for split in ('train', 'validation'):
    for i, content in enumerate(contents):
      kind = folder / split / f'class_{i:03d}'
      kind.mkdir(parents=True)
      (kind / f'0.{extension[content[:2]]}').write_bytes(content)
  config = config_lib.DataConfig(
    name=f'folder:{folder}', image_size=size, crop='center'
  )
  source = sources.load(config, 'validation')
  batch = next(
    iter(pipeline.evaluation_batches(source, config, batch_size=len(contents)))
  )
  order = np.argsort(batch['labels'].numpy())
  return tf.gather(batch['images'], order)
