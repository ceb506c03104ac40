"""The record of the ablations: which runs are done."""

from collections.abc import Mapping
import json
import pathlib

from experiments.studies.ablations import rows as rows_lib
from experiments.studies.ablations.budgets import Budget
from experiments.studies.ablations.rows import Row
from vim_tf.training import workdir as workdir_lib

LINES = 'runs.jsonl'
"""Name of the file."""


class Record:
  """The finished runs: a file with one JSON line each.

  A line counts only for the budget and settings that it was made with, so that
  a row that was changed is run again. Other lines stay in the file.

  Args:
    file: The file; it need not be there.
    name: Name of the budget.
    budget: The budget.
    rows: All rows by name.
  """

  def __init__(
    self, file: pathlib.Path, name: str, budget: Budget, rows: Mapping[str, Row]
  ):
    self.budget = budget
    self.name = name
    self.rows = rows
    self._file = file
    self._fingerprints = {
      row.name: rows_lib.fingerprint(row, self.budget, rows)
      for row in rows.values()
    }
    self.lines = [
      line
      for line in workdir_lib.read_rows(file)
      if self._fingerprints.get(line['row']) == line['fingerprint']
    ]

  def has(self, row: str, seed: int) -> bool:
    return any(
      (line['row'], line['seed']) == (row, seed) for line in self.lines
    )

  def add(self, line: Mapping):
    """Appends a run."""
    line = {**line, 'fingerprint': self._fingerprints[line['row']]}
    line = {'budget': self.name, **line}
    text = json.dumps(line) + '\n'
    if self._file.exists() and not self._file.read_text().endswith('\n'):
      text = '\n' + text  # A line was cut short by a kill.
    with open(self._file, 'a') as file:
      file.write(text)
    self.lines.append(line)
