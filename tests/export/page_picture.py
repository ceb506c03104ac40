"""Takes the picture of the page that the docs show, of a server that runs.

  ./bazelw run //tests:page_picture -- --image=image.png \
    --out=docs/serving-page.png

It needs Chromium (Debian: apt-get install chromium).
"""

import os
import pathlib
import sys
import tempfile

from absl import app, flags

from tests.export import chromium

URL = flags.DEFINE_string('url', 'http://127.0.0.1:8501/', 'The page.')
IMAGE = flags.DEFINE_string(
  'image', None, 'A PNG file to drop on it.', required=True
)
OUT = flags.DEFINE_string('out', None, 'The picture.', required=True)
CLASS = flags.DEFINE_integer('class', 0, 'Index of the class to draw.')
SEED = flags.DEFINE_integer('seed', 0, 'The first seed.')
COUNT = flags.DEFINE_integer('count', 6, 'How many images to draw.')
GUIDANCE = flags.DEFINE_float('guidance', 2.0, 'The guidance scale.')


def main(_):
  """Draws images, drops one, and takes the picture."""
  os.chdir(os.environ.get('BUILD_WORKING_DIRECTORY', '.'))
  if not chromium.find():
    sys.exit('error: There is no Chromium (Debian: apt-get install chromium).')
  content = pathlib.Path(IMAGE.value).read_bytes()
  with tempfile.TemporaryDirectory() as profile:
    page = chromium.Page(URL.value, pathlib.Path(profile))
    page.wait_for("document.body && document.body.dataset.ready === 'yes'")
    page.run(
      f"location.hash = 'class={CLASS.value}&seed={SEED.value}&"
      f'count={COUNT.value}&guidance={GUIDANCE.value}&'
      f"complete_class={CLASS.value}&complete_guidance={GUIDANCE.value}'"
    )
    page.wait_for(
      f"document.querySelectorAll('#samples img').length === {COUNT.value}"
    )
    page.drop(content, 'image/png')
    page.wait_for("""
      document.querySelector('#completing .elapsed').textContent
          .startsWith('Done') &&
      [...document.querySelectorAll('figure img')].every((x) => x.complete)
    """)
    pathlib.Path(OUT.value).write_bytes(page.screenshot())
    page.close()


if __name__ == '__main__':
  app.run(main)
