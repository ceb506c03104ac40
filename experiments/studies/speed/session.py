"""Runs rows of the table, and makes a record of each."""

from collections.abc import Mapping
import contextlib
import dataclasses
import os
import pathlib
import platform
import tempfile

import tensorflow as tf

from experiments.studies.speed import limits, profiling, timing
from experiments.studies.speed.rows import Row
from experiments.studies.speed.sizes import Sizes
from experiments.studies.speed.timing import Job, Times
from vim_tf import config as config_lib
from vim_tf import machine as machine_lib


@dataclasses.dataclass(frozen=True)
class Session:
  """One run of the benchmark.

  Attributes:
    sizes: How large everything is.
    ceilings: What the machine can do.
    seconds: Time for the calls of a row (of a pair, for both together).
    min_calls: Calls of a row at least.
    operations: How many operations to tell of, from one more call under the
      profiler; 0: no such call.
  """

  sizes: Sizes
  ceilings: limits.Ceilings
  seconds: float
  min_calls: int
  operations: int = 0

  def run(self, row: Row, versions: list[object]) -> list[dict]:
    """Times a row under one setting, or under two of them in turn.

    Args:
      row: The row.
      versions: Its settings: one, or two to compare.

    Returns:
      A record for each version, one of the operations that it spends most
      time in if they are to be told, and for two versions one of their ratios.
    """
    with contextlib.ExitStack() as stack:
      before = timing.resident_bytes()
      jobs = []
      for settings in versions:
        arguments = [self.sizes, settings]
        if row.needs_folder:
          folder = stack.enter_context(tempfile.TemporaryDirectory())
          arguments.append(pathlib.Path(folder))
        jobs.append(row.prepare(*arguments))
      kinds = {
        kind
        for job in jobs
        if job.work
        for kind in (job.work.precision, limits.MEMORY)
      }
      # On both sides, the higher one: a share is never flattered by a ceiling
      # that something else disturbed.
      first = {kind: self.ceilings.measure(kind) for kind in sorted(kinds)}
      times = timing.measure(
        jobs, seconds=self.seconds, min_calls=self.min_calls
      )
      rates = {
        kind: max(rate, self.ceilings.measure(kind))
        for kind, rate in first.items()
      }
      profiles = [self._profile(job) for job in jobs]
    records = []
    for settings, job, found, profile in zip(versions, jobs, times, profiles):
      records.append(record(row, settings, job, found, rates, before))
      if profile:
        records.append(
          {
            'kind': 'profile',
            'row': row.name,
            'settings': dataclasses.asdict(settings),
            'operations': profile,
          }
        )
    if len(versions) == 2:
      ratios = timing.ratios(*times)
      records.append(
        {
          'kind': 'pair',
          'row': row.name,
          'settings': dataclasses.asdict(versions[0]),
          'vs': dataclasses.asdict(versions[1]),
          'ratios': ratios,
        }
      )
    return records

  def _profile(self, job: Job) -> list[dict]:
    if not self.operations:
      return []
    return profiling.operations(job)[: self.operations]

  def end(self) -> dict:
    """The highest ceilings that were met."""
    return {'kind': 'ceilings', **self.ceilings.best}


def record(
  row: Row,
  settings: object,
  job: Job,
  times: Times,
  rates: Mapping[str, float],
  before: int | None,
) -> dict:
  """What is known of a row, as JSON values.

  Args:
    row: The row.
    settings: Its settings.
    job: What was timed.
    times: What was measured.
    rates: The ceilings beside it, by kind.
    before: Bytes that this process had before the job was made.

  Returns:
    Seconds (median, fastest, slowest and all), units a second, FLOPs and bytes
    of a call, the ceiling that it meets first, the share of it that the median
    reaches, and the peak of the memory.
  """
  result = {
    'kind': 'row',
    'row': row.name,
    'what': row.what,
    'settings': dataclasses.asdict(settings),
    'calls': times.calls,
    'seconds': times.median,
    'fastest': times.fastest,
    'slowest': times.slowest,
    'all_seconds': list(times.seconds),
    'first_seconds': times.first,
    'unit': job.unit,
    'per_second': job.units / times.median,
    'peak_bytes': times.peak_bytes,
  }
  if times.peak_bytes is not None:
    result['peak_above_start_bytes'] = times.peak_bytes - before
  if job.work:
    name, least = job.work.limit(rates)
    result.update(
      flops=job.work.flops,
      bytes=job.work.bytes,
      limit=name,
      limit_rate=rates[name],
      share=least / times.median,
    )
  return result


def machine(sizes: Sizes) -> dict:
  """Where and with what a run is made."""
  threads = tf.config.threading.get_intra_op_parallelism_threads()
  return {
    'kind': 'machine',
    'cpu': machine_lib.cpu(),
    'cores': machine_lib.cores(),
    'threads': threads or machine_lib.cores(),
    'load_average': os.getloadavg()[0],
    'python': platform.python_version(),
    'tensorflow': tf.__version__,
    'sizes': config_lib.to_dict(sizes),
  }


def versions(
  row: Row, changes: Mapping[str, str], vs: Mapping[str, str]
) -> list[object] | None:
  """The settings under which a row is timed.

  Args:
    row: The row.
    changes: Settings by name, as text, for the row itself.
    vs: Further ones, for what it is compared with; empty: with nothing.

  Returns:
    One or two settings; None if the row has no such setting.

  Raises:
    ConfigError: If a value does not fit.
  """
  known = {field.name for field in dataclasses.fields(row.settings)}
  if not known.issuperset([*changes, *vs]):
    return None
  first = config_lib.replace(row.settings, dict(changes))
  return [first, config_lib.replace(first, dict(vs))] if vs else [first]
