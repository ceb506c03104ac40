"""How good a VIM's samples are, with the whole protocol."""

from collections.abc import Sequence
import dataclasses
import pathlib

from absl import logging
import numpy as np

from vim_tf.config import UserError
from vim_tf.jobs import class_names, pictures, references, restore
from vim_tf.jobs import sample as sample_job
from vim_tf.metrics import classifiers
from vim_tf.metrics import generation as scores_lib
from vim_tf.nn import replicas
from vim_tf.protocols import SamplesProtocol

_SHOWN = 64  # Images of a class in its gallery.
_COLUMNS = 8


@dataclasses.dataclass(frozen=True)
class Bench:
  """What samples of one model are drawn with and compared with.

  Attributes:
    sampler: Draws the samples.
    evaluator: Measures them.
    classifier: Selects; None if nothing is selected.
    ids: Class of each sample.
    baselines: Figures of real images and reconstructions, by name.
    facts: What the protocol says of the models and the data.
  """

  sampler: sample_job.Sampler
  evaluator: references.Evaluator
  classifier: classifiers.Classifier | None
  ids: np.ndarray
  baselines: dict
  facts: dict


def prepare(
  tokenizer: restore.Restored,
  vim: restore.Restored,
  protocol: SamplesProtocol,
  folder: pathlib.Path | None = None,
) -> Bench:
  """Loads the networks and measures the real images.

  Args:
    tokenizer: Turns codes into images.
    vim: The model.
    protocol: What to measure, and how.
    folder: Where trained heads are kept; None: nowhere.

  Raises:
    UserError: If something of the protocol does not fit the model, or the
      network that selects is the one that scores.
  """
  if protocol.data is None:
    protocol = dataclasses.replace(protocol, data=vim.config.data)
  data = references.Data(
    protocol.data,
    protocol.max_images,
    protocol.batch_size,
    protocol.on_bad_example,
  )
  selecting = protocol.acceptance < 1
  if selecting:  # Told before anything is measured.
    references.check_conditional(vim)
    _check_names(protocol)
  source = data.source(protocol.data.train_split)
  names, num_classes = list(source.class_names), vim.config.model.num_classes
  if num_classes and names != vim.record['class_names']:
    raise UserError(
      f'The classes of {source.name} are not those of the model, so that its '
      'samples cannot be compared: choose the data it was trained on.'
    )
  with replicas.of(vim.model).scope():
    evaluator, counts = references.load_evaluator(
      protocol.network,
      data,
      reference=protocol.reference,
      save_reference=protocol.save_reference,
      reference_split=protocol.reference_split,
      folder=folder,
    )
  classifier = None
  if selecting:
    classifier = references.load_classifier(
      protocol.classifier, vim, data, folder, evaluator.network
    )
  sampler = sample_job.Sampler(tokenizer.model, vim.model)
  return Bench(
    sampler,
    evaluator,
    classifier,
    references.spread(
      protocol.num_samples,
      num_classes,
      counts if protocol.class_mix == 'data' else None,
    ),
    _baselines(tokenizer, evaluator, data),
    {
      'data': source.name,
      'data_fingerprint': source.fingerprint,
      'held_out_split': protocol.data.eval_split,
      'image_size': protocol.data.image_size,
      'crop': references.CROP,
      'reference': evaluator.reference.protocol(),
      'network': evaluator.network.name,
      'network_source': evaluator.network.source,
      'vim_fingerprint': restore.fingerprint(vim.model),
      'vim_step': vim.step,
      'tokenizer_fingerprint': restore.fingerprint(tokenizer.model),
      'precision': vim.model.dtype_policy.name,
    },
  )


def evaluate(
  tokenizer: restore.Restored,
  vim: restore.Restored,
  protocol: SamplesProtocol | None = None,
  folder: pathlib.Path | None = None,
) -> tuple[dict, dict[str, np.ndarray]]:
  """Draws samples and measures them.

  For the arguments see `prepare`; without a protocol it has its defaults.

  Returns:
    Figures and protocol as one JSON object, and a uint8 gallery of each
    class by file name. The figures hold those of the samples (see
    `references.Evaluator.score_features`), beside them those of the held-out
    images and of their reconstructions, prefixed so, and the floor, real
    against real within the reference.

  Raises:
    UserError: See `prepare`.
  """
  protocol = protocol or SamplesProtocol()
  sample_job.warn(protocol.sampling.guidance_scale, vim.config)
  bench = prepare(tokenizer, vim, protocol, folder)
  logging.info('%d samples are being drawn.', protocol.num_samples)
  kept = draw(bench, protocol)
  labels = bench.ids if vim.config.model.num_classes else None
  figures = bench.evaluator.score(kept.images, labels)
  protocol_row = {
    'num_samples': len(kept.codes),
    'class_mix': protocol.class_mix,
    'seed': protocol.seed,
    'sampling': vars(protocol.sampling),
    'acceptance': protocol.acceptance,
    'num_candidates': kept.num_candidates,
    **bench.facts,
    **selection_facts(bench),
  }
  result = {
    'job': 'generation',
    'figures': {**figures, **bench.baselines},
    'protocol': protocol_row,
  }
  return result, galleries(kept.images, labels, vim.record['class_names'])


def selection_facts(bench: Bench) -> dict:
  """What the protocol says of the classifier, if there is one."""
  if bench.classifier is None:
    return {}
  return {
    'classifier': bench.classifier.name,
    'classifier_source': bench.classifier.source,
    'classifier_facts': bench.classifier.facts,
  }


def draw(bench: Bench, protocol: SamplesProtocol):
  """The samples of a protocol, with its rejection."""
  return bench.sampler.keep_best(
    bench.ids,
    protocol.seed,
    protocol.sampling,
    acceptance=protocol.acceptance,
    classifier=bench.classifier,
    batch_size=protocol.batch_size,
  )


def galleries(
  images: np.ndarray, labels: np.ndarray | None, names: Sequence[str]
) -> dict[str, np.ndarray]:
  """A grid of each class's first images, by file name."""
  images = images / np.float32(255)
  if labels is None:
    return {'samples.png': pictures.grid(images[:_SHOWN], _COLUMNS)}
  found = {}
  for label in np.unique(labels):
    own = images[labels == label][:_SHOWN]
    shown = [class_names.shown_name(names[label])] * len(own)
    found[f'class-{label:04d}.png'] = pictures.grid(own, _COLUMNS, shown)
  return found


def _check_names(protocol: SamplesProtocol):
  """Refuses one network for both purposes before any is loaded."""
  selecting = protocol.classifier.removeprefix(classifiers.HEAD)
  classifiers.check_independent(
    protocol.classifier, selecting, protocol.network, protocol.network
  )


def _baselines(
  tokenizer: restore.Restored,
  evaluator: references.Evaluator,
  data: references.Data,
) -> dict:
  """What the scores are of real images, and of what the tokenizer leaves."""
  figures = {}
  split, model = data.config.eval_split, tokenizer.model
  reconstruct = replicas.OnReplicas(model.reconstruct, replicas.of(model))
  for prefix, through in (('held_out_', None), ('reconstructed_', reconstruct)):
    real = data.read(evaluator.network, split, through)
    found = evaluator.score_features(real.features, real.logits, real.labels)
    figures.update({f'{prefix}{key}': value for key, value in found.items()})
    figures[f'{prefix}images'] = len(real.labels)
  floor = scores_lib.floor(evaluator.reference.features, evaluator.network.name)
  return {**figures, **floor}
