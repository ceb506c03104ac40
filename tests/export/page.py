"""The page of the loopback server, in a browser."""

import json
import pathlib
import urllib.request

import numpy as np

from export import warmup
from tests.export import chromium, clients, tiny


class Tests(clients.TestCase):
  """The base of a test case, whose class starts a server."""

  def test_page_is_found(self):
    url = f'http://127.0.0.1:{self.rest_port}/'
    with urllib.request.urlopen(url) as page:
      self.assertIn('text/html', page.headers['Content-Type'])
      self.assertIn(b'id="drop"', page.read())
    with urllib.request.urlopen(f'{url}page.json') as facts:
      found = json.load(facts)
    self.assertCountEqual(found, self.bases)
    self.assertEqual(found['sampler']['class_names'], tiny.CLASSES)

  def test_page(self):
    if not chromium.find():
      self.skipTest(
        'There is no Chromium on this machine (Debian: apt-get install '
        'chromium), so that the page was not tried.'
      )
    url = f'http://127.0.0.1:{self.rest_port}/'
    page = chromium.Page(url, pathlib.Path(self.create_tempdir()))
    self.addCleanup(page.close)
    page.wait_for("document.body && document.body.dataset.ready === 'yes'")
    classes = page.run("""
      [...document.querySelectorAll('#class option')].map((x) => x.textContent)
    """)
    self.assertEqual(classes, [*tiny.CLASSES, 'no class'])

    # A class is chosen and drawn; what is no number is told beside its field.
    page.run("""
      var set = (id, value) => {
        $(id).value = value;
        $(id).dispatchEvent(new Event('change', {bubbles: true}));
      };
      set('class', 4);
      set('seed', '');
      set('top_p', '0');
      set('top_k', '1.5');
      set('guidance', 'x');
      $('draw').click();
    """)
    told = page.run("""
      ['class', 'seed', 'top_p', 'top_k', 'guidance', 'temperature'].map((x) =>
          [$(x).getAttribute('aria-invalid'), $(`${x}_wrong`).textContent])
    """)
    self.assertEqual(
      told,
      [['false', ''], ['true', 'Write a number.'],
       ['true', 'Write more than 0.'], ['true', 'Write a whole number.'],
       ['true', 'Write a number.'], ['false', '']],
    )  # fmt: skip
    self.assertEqual(page.run('document.activeElement.id'), 'guidance')
    page.run("""
      Object.entries({seed: 11, count: 2, guidance: 2.5, top_k: 0, top_p: 1}
      ).forEach((x) => set(...x));
      $('draw').click();
    """)
    shown = page.wait_for("""
      document.querySelectorAll('#samples img').length === 2 &&
      [...document.querySelectorAll('#samples img')].every(
          (x) => x.naturalWidth === 16 && x.width === 16) &&
      [...document.querySelectorAll('#samples img')].map((x) => x.src)
    """)
    drawn = {
      'class_ids': np.int32([4, 4]),
      'seeds': np.int64([11, 12]),
      'temperature': np.float32([1, 1]),
      'top_k': np.int32([0, 0]),
      'top_p': np.float32([1, 1]),
      'guidance_scale': np.float32([2.5, 2.5]),
    }
    expected = self.direct('sampler', 'serving_default', drawn)['png_bytes']
    self.assertEqual(shown, [self._url(file) for file in expected])

    # The address draws the same; a picture's own draws it alone.
    self.assertEqual(
      page.run('location.hash'), '#class=4&guidance=2.5&seed=11&count=2'
    )
    page.run("document.querySelectorAll('#samples .link')[1].click()")
    page.wait_for("document.querySelectorAll('#samples img').length === 1")
    self.assertEqual(
      page.run("document.querySelector('#samples img').src"), shown[1]
    )
    self.assertEqual(page.run("$('seed').value + $('count').value"), '121')
    page.run("document.querySelector('#samples .picture').click()")
    self.assertTrue(page.run("$('large').open"))
    page.run("$('large').close()")

    # What was begun is given up; nothing is told of it later.
    page.run("set('count', 64); $('draw').click()")
    page.run("document.querySelector('#settings .cancel').click()")
    self.assertIn('Cancelled', page.wait_for("""
      document.querySelector('#settings .elapsed').textContent
          .startsWith('Cancelled') &&
      document.querySelector('#settings .elapsed').textContent
    """))  # fmt: skip

    # An image is dropped.
    page.drop(tiny.encoded(tiny.picture(5)), 'image/png')
    shown = page.wait_for("""
      ['reconstruction', 'completion'].every((id) => {
        const image = document.querySelector(`#${id} img`);
        return image && image.naturalWidth === 16;
      }) && document.querySelectorAll('#classes tr').length === 5 &&
      document.querySelector('#reconstruction img').src
    """)
    files = {'image_bytes': np.array([tiny.encoded(tiny.picture(5))], object)}
    expected = self.direct('tokenizer', 'reconstruct', files)['png_bytes']
    self.assertEqual(shown, self._url(expected[0]))
    kept = {'kept_rows': np.int32([2])}  # Half of them, as the page begins.
    one = warmup.sampling_settings(1)
    expected = self.direct('sampler', 'complete', {**files, **kept, **one})
    shown = page.run("document.querySelector('#completion img').src")
    self.assertEqual(shown, self._url(expected['png_bytes'][0]))
    names = page.run("""
      [...document.querySelectorAll('#classes meter')].map(
          (x) => x.getAttribute('aria-label'))
    """)
    self.assertLen(set(names), 5)
    names = page.run("""
      [...document.querySelectorAll('#classes tr')].map(
          (x) => x.firstChild.textContent)
    """)
    found = self.direct('probe', 'serving_default', files)['top_classes']
    self.assertEqual(names, [x.decode() for x in found[0]])

    # The completion follows its own settings, and keeps what is drawn.
    page.run("set('complete_class', 2); set('complete_seed', 8)")
    one.update(class_ids=np.int32([2]), seeds=np.int64([8]))
    expected = self.direct('sampler', 'complete', {**files, **kept, **one})
    shown = page.wait_for(f"""
      document.querySelector('#completion img').src ===
          '{self._url(expected['png_bytes'][0])}'
    """)
    # All rows that are kept are its reconstruction.
    page.run("set('complete_rows', 4)")
    page.wait_for("""
      ['reconstruction', 'completion'].map(
          (id) => document.querySelector(`#${id} img`)?.src
      ).every((x, _, all) => x && x === all[0])
    """)

    # What is no image is refused in words, pasted or dropped.
    error = "document.querySelector('#completing .error').textContent"
    page.drop(b'hello', 'image/png')
    self.assertEqual(
      page.wait_for(error), 'dropped: the bytes are not a JPEG or PNG image'
    )
    self.assertEqual(page.run("$('parts').children.length"), 0)
    page.run(f"{error[:-12]}.textContent = ''")
    page.drop(tiny.encoded(tiny.picture(5), 'GIF'), 'image/gif', 'paste')
    self.assertIn('it is a GIF image', page.wait_for(error))

  def _url(self, file: bytes) -> str:
    return f'data:image/png;base64,{clients.to_json(file)["b64"]}'
