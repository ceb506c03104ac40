"""Preparing a TFDS data set: once, however many runs start at the same time."""

import contextlib
import fcntl
import os
import pathlib

from absl import logging
import tensorflow_datasets as tfds

from vim_tf.config import first_line
from vim_tf.data.errors import DataError

# Without one of them TFDS would prepare the rest, for hours, and for good.
_ARCHIVES = {
  'imagenet2012': ('ILSVRC2012_img_train.tar', 'ILSVRC2012_img_val.tar')
}


def prepare(builder: tfds.core.DatasetBuilder, name: str):
  """Downloads and prepares a data set, unless that is done.

  Of several processes that come at once one prepares, and the others wait for
  it by a lock beside the data, which ends with the process that holds it.

  Args:
    builder: The data set; its `info` tells of the splits afterwards.
    name: What messages call it.

  Raises:
    DataError: If it cannot be prepared, for instance because the network is
      down, or files that must be fetched by hand are not there.
  """
  if builder.is_prepared():
    return
  _check_archives(builder, name)
  with _locked(builder, name):
    if builder.is_prepared():  # By the process that was waited for.
      builder.info.read_from_directory(builder.data_dir)
      return
    try:
      builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False)
      )
    except Exception as error:
      if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        reason = ': ' + ' '.join(str(error).split())
      else:
        reason = f' (is the network down?): {first_line(error)}'
      raise DataError(
        f'Data set {name!r} cannot be prepared in {builder.data_dir}{reason}'
      ) from error


def _check_archives(builder: tfds.core.DatasetBuilder, name: str):
  """Refuses a data set of which archives are missing that users must fetch."""
  folder = pathlib.Path(builder.data_dir_root) / 'downloads' / 'manual'
  archives = _ARCHIVES.get(builder.name, ())
  missing = [file for file in archives if not (folder / file).exists()]
  if missing:
    raise DataError(
      f'Data set {name!r} needs {" and ".join(archives)} in {folder}, but '
      f'{" and ".join(missing)} cannot be found there: register at '
      'https://image-net.org/download-images, download what is missing and put '
      'it there, or name the folder that has downloads/manual by --data_dir.'
    )


@contextlib.contextmanager
def _locked(builder: tfds.core.DatasetBuilder, name: str):
  """Keeps other processes out; waits for the one that is inside."""
  place = pathlib.Path(builder.data_dir)
  with contextlib.ExitStack() as stack:
    # Where no lock can be had, preparing fails by itself, or is remote.
    if '://' not in str(builder.data_dir):
      with contextlib.suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        file = stack.enter_context(
          open(place.parent / f'.{place.name}.lock', 'a')
        )
        _lock(file, name, place)
    yield


def _lock(file, name: str, place: os.PathLike):
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    logging.info(
      'Another process prepares data set %r in %s: waiting for it.', name, place
    )
    fcntl.flock(file, fcntl.LOCK_EX)
