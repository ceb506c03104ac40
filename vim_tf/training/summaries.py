"""What a run leaves to look at: TensorBoard, `metrics.jsonl`, pictures."""

import contextlib

import numpy as np
from PIL import Image
import tensorflow as tf

from vim_tf.training import workdir as workdir_lib


class Writer:
  """Writes figures and pictures of a run.

  Args:
    workdir: The run's working directory.

  Raises:
    WorkdirError: In each method, if it cannot write (a full disk, say).
  """

  def __init__(self, workdir: workdir_lib.Workdir):
    self._workdir = workdir
    self._events = tf.summary.create_file_writer(str(workdir.events))

  def scalars(self, step: int, values: dict[str, float], prefix: str = ''):
    """Writes named figures as curves and as one row of `metrics.jsonl`."""
    values = {prefix + name: float(value) for name, value in values.items()}
    with self._writing(), self._events.as_default(step=step):
      for name, value in values.items():
        tf.summary.scalar(name, value)
      self._workdir.log({'step': step, **values})

  def images(self, step: int, pictures: dict[str, np.ndarray]):
    """Writes uint8 `[height, width, 3]` pictures, also as PNG files."""
    with self._writing(), self._events.as_default(step=step):
      for name, picture in pictures.items():
        tf.summary.image(name, picture[None])
        Image.fromarray(picture).save(
          self._workdir.samples / f'{name}-{step:09d}.png'
        )

  def flush(self):
    """Makes sure that everything is on disk."""
    with self._writing():
      self._events.flush()

  @contextlib.contextmanager
  def _writing(self):
    try:
      yield
    except (OSError, tf.errors.OpError) as error:
      line = (str(error).splitlines() or [type(error).__name__])[0]
      raise workdir_lib.WorkdirError(
        f'Cannot write to the working directory {self._workdir.path}: {line}'
      ) from error
