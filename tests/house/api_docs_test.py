"""Test that the docstrings render as pages, without a warning."""

import importlib.util
import os
import pathlib
import re
import sys

from absl.testing import absltest

from tools import api_docs

_ROOT = pathlib.Path(os.path.realpath(__file__)).parents[2]


@absltest.skipIf(
  importlib.util.find_spec('pdoc') is None, 'pdoc is not installed'
)
class ApiDocsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def test_every_module_has_its_page(self):
    sys.path.insert(0, str(_ROOT))
    out = self.folder / 'api'
    self.assertEmpty(api_docs.build(api_docs.PACKAGE, out))
    for path in (_ROOT / api_docs.PACKAGE).rglob('*.py'):
      name = path.relative_to(_ROOT).with_suffix('.html')
      if path.name == '__init__.py':
        name = name.parent.with_suffix('.html')
      elsewhere = path.stem == 'encode_beam'  # Its packages are not here.
      self.assertEqual((out / name).exists(), not elsewhere, name)
    page = (out / 'vim_tf' / 'vit_vqgan' / 'quantizer.html').read_text()
    text = re.sub(r'<[^>]*>', ' ', page)
    self.assertIn('Vector quantisation with an optionally', text)
    # Sections are recognised, not run together with the words before them.
    self.assertRegex(page, r'<h6[^>]*>Arguments:</h6>')
    self.assertRegex(page, r'<strong>codebook_size:</strong>')

  def test_a_warning_is_an_error(self):
    package = self.folder / 'broken_package'
    package.mkdir()
    (package / '__init__.py').write_text('"""A package."""\n')
    (package / 'wrong.py').write_text('"""A module."""\nimport no_such_thing\n')
    (problem,) = api_docs.build(str(package), self.folder / 'api')
    self.assertIn('no_such_thing', problem)


if __name__ == '__main__':
  absltest.main()
