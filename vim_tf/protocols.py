"""What is measured of a trained run, and how: a protocol for each job.

All of a protocol goes into the JSON of the figures that it gave.
"""

import dataclasses

from vim_tf.config import (
  CLASS_MIXES,
  FEATURE_NETWORK,
  BadExamples,
  DataConfig,
  SamplingConfig,
  SelectionConfig,
)
from vim_tf.settings import setting


@dataclasses.dataclass(frozen=True)
class Protocol(BadExamples):
  """What all of them have.

  Attributes:
    data: The images: name, splits, size; None: those of the run. Held-out ones
      are cropped at the centre.
  """

  data: DataConfig | None = None
  max_images: int = setting('Real images of a split at most.', 50_000, least=1)
  batch_size: int = setting('Images at once; changes no figure.', 32, least=1)


@dataclasses.dataclass(frozen=True)
class DistanceProtocol(Protocol):
  """What those have that measure distances between sets of images."""

  network: str = setting(
    'Feature network: efficientnet_lite0 (or 1, 2), inception, inception:PATH '
    'or file:PATH; empty, of a reconstruction: no distances.',
    FEATURE_NETWORK,
  )


@dataclasses.dataclass(frozen=True)
class ReconstructionProtocol(DistanceProtocol):
  """How reconstructions are measured."""

  perceptual: bool = setting('Measure LPIPS (VGG16).', True)
  precisions: bool = setting(
    'Also compare the codes of bfloat16 with those of float32.', False
  )


@dataclasses.dataclass(frozen=True)
class SamplesProtocol(DistanceProtocol, SelectionConfig):
  """How samples are drawn and measured.

  Attributes:
    sampling: How codes are drawn.
  """

  sampling: SamplingConfig = SamplingConfig()
  num_samples: int = setting('Samples to score.', 1000, least=4)
  seed: int = setting(
    'Seed of the first sample; the next ones count up.', 0, least=0
  )
  class_mix: str = setting(
    'data: classes as often as in the reference; equal: all alike.',
    'data',
    choices=CLASS_MIXES,
  )
  reference: str = setting(
    'File of reference features; empty: made of --reference_split.', ''
  )
  save_reference: str = setting('.npz file to keep new ones in.', '')
  reference_split: str = setting(
    'Split that distances are from; empty: the training split, as is usual '
    'for samples.',
    '',
  )


@dataclasses.dataclass(frozen=True)
class LikelihoodProtocol(Protocol):
  """How held-out codes are predicted, by a VIM and by models that count.

  Attributes:
    max_train_codes: How many codes those learn from at most, for the memory.
  """

  codes: str = setting(
    'Folder of encode_dataset; empty: codes are made from images.', ''
  )
  passes: int = setting(
    'Augmented passes over the training images that the counting models learn '
    "from, drawn as the VIM's own were; of a cache, its crops at most.",
    7,
    least=1,
  )
  classify: bool = setting(
    'Whether to classify the images, too: each is of the class under which its '
    'codes are likeliest (Ng and Jordan, 2001). Takes a pass for every class.',
    False,
  )
  max_train_codes: int = 2**25
