"""Preparing photographs: what is written, what is left out."""

import pathlib
import sys
import types
from unittest import mock

from absl.testing import absltest, parameterized
import numpy as np
import PIL.Image
import PIL.ImageCms

from tests.data import odd_pictures
from vim_tf.data import errors, folders, preparation


def _ramp(width: int, height: int) -> PIL.Image.Image:
  """Red grows to the right, green downwards."""
  rows, columns = np.indices([height, width]).astype(float)
  pixels = np.stack(
    [columns * 255 / (width - 1), rows * 255 / (height - 1), 0 * rows], -1
  )
  return PIL.Image.fromarray(pixels.round().astype(np.uint8))


class MakeImageTest(parameterized.TestCase):
  def make(self, encoded: bytes, size: int = 10) -> np.ndarray:
    image = preparation.make_image(encoded, size)
    self.assertEqual(image.mode, 'RGB')
    return np.asarray(image).astype(int)

  @parameterized.parameters('JPEG', 'PNG', 'WEBP', 'TIFF', 'BMP')
  def test_the_shorter_side_is_made_that_long(self, kind):
    encoded = odd_pictures.encode(_ramp(320, 200), kind)
    self.assertEqual(self.make(encoded, 50).shape, (50, 80, 3))
    self.assertEqual(self.make(encoded, 200).shape, (200, 320, 3))
    self.assertEqual(self.make(encoded, 400).shape, (200, 320, 3))

  def test_a_long_strip(self):
    encoded = odd_pictures.encode(PIL.Image.new('RGB', (3000, 2)), 'PNG')
    self.assertEqual(self.make(encoded, 1).shape, (1, 1500, 3))

  def test_it_is_turned_upright(self):
    """Orientation 6: what was shot as the left is the upper side."""
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    got = self.make(odd_pictures.encode(_ramp(300, 200), 'JPEG', exif=exif), 50)
    self.assertEqual(got.shape, (75, 50, 3))
    self.assertLess(got[2, 25, 0], 30)  # Red grows downwards,
    self.assertGreater(got[-3, 25, 0], 225)
    self.assertGreater(got[37, 2, 1], 225)  # green to the left.
    self.assertLess(got[37, -3, 1], 30)

  def test_gray_of_16_bits_keeps_its_scale(self):
    values = np.linspace(0, 65535, 100).astype(np.uint16).reshape(10, 10)
    got = self.make(odd_pictures.encode(PIL.Image.fromarray(values), 'PNG'))
    np.testing.assert_allclose(got[..., 0], values / 257, atol=1)
    np.testing.assert_array_equal(got[..., 0], got[..., 2])

  def test_transparency_is_laid_on_white(self):
    image = _ramp(10, 10)
    image.putalpha(PIL.Image.new('L', (10, 10), 64))
    expected = np.asarray(_ramp(10, 10)) * (64 / 255) + 255 * (1 - 64 / 255)
    np.testing.assert_allclose(
      self.make(odd_pictures.encode(image, 'PNG')), expected, atol=1.01
    )

  def test_colour_spaces_are_brought_to_srgb(self):
    """A profile that calls red what sRGB calls blue, and so on."""
    image = _ramp(10, 10)
    plain = self.make(odd_pictures.encode(image, 'PNG'))
    srgb = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile('sRGB'))
    same = self.make(
      odd_pictures.encode(image, 'PNG', icc_profile=srgb.tobytes())
    )
    np.testing.assert_allclose(same, plain, atol=1)
    swapped = srgb.tobytes()
    for ours, theirs in (
      (b'rXYZ', b'????'),
      (b'bXYZ', b'rXYZ'),
      (b'????', b'bXYZ'),
    ):
      swapped = swapped.replace(ours, theirs)
    got = self.make(odd_pictures.encode(image, 'PNG', icc_profile=swapped))
    np.testing.assert_allclose(got, plain[..., ::-1], atol=2)
    broken = self.make(
      odd_pictures.encode(image, 'PNG', icc_profile=b'no profile')
    )
    np.testing.assert_array_equal(broken, plain)

  def test_cmyk(self):
    flat = PIL.Image.new('CMYK', (10, 10), (0, 255, 255, 0))
    got = self.make(odd_pictures.encode(flat, 'JPEG', quality=100))
    np.testing.assert_allclose(got, np.full([10, 10, 3], [255, 0, 0]), atol=3)


class PrepareTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    root = pathlib.Path(self.create_tempdir().full_path)
    self.source, self.out = root / 'my pictures', root / 'new' / 'photos'
    (self.source / 'Bäume').mkdir(parents=True)
    (self.source / 'cats').mkdir()

  def write(self, name: str, content: bytes):
    (self.source / name).write_bytes(content)

  def prepare(self) -> preparation.Report:
    return preparation.prepare(self.source, self.out, 8)

  def test_a_folder_of_a_phone(self):
    image = _ramp(20, 16)
    jpeg = odd_pictures.encode(image, 'JPEG')
    self.write('Bäume/IMG 1.JPG', jpeg)
    self.write('Bäume/IMG 1.webp', odd_pictures.encode(image, 'WEBP'))
    self.write('Bäume/IMG 1.png', odd_pictures.encode(image, 'PNG'))
    self.write('cats/Omas [2] 100%.jpeg', jpeg)
    self.write('cats/a.tiff', odd_pictures.encode(image, 'TIFF'))
    self.write('cats/wrong.png', jpeg)
    self.write('cats/half.jpg', jpeg[:-20])
    self.write('cats/iphone.HEIC', b'\0\0\0\x18ftypheic')
    self.write('cats/film.mov', b'\0\0\0\x14ftypqt  ')
    for name in ('.DS_Store', 'cats/._a.jpg', 'cats/Thumbs.db'):
      self.write(name, b'clutter')
    with mock.patch.dict(sys.modules, pillow_heif=None):
      report = self.prepare()
    self.assertEqual((report.num_written, report.num_there), (6, 0))
    self.assertEqual(
      [line.partition(' is ')[::2] for line in report.left_out],
      [
        ('cats/film.mov', 'not an image'),
        ('cats/half.jpg', 'a broken image (OSError)'),
        (
          'cats/iphone.HEIC',
          'HEIC, for which Pillow needs the package pillow-heif: install it, '
          'or export the picture as JPEG',
        ),
      ],
    )
    written = {
      str(path.relative_to(self.out)): PIL.Image.open(path)
      for path in folders.files_below(self.out)
    }
    self.assertEqual(
      {name: image.format for name, image in written.items()},
      {
        'Bäume/IMG 1.JPG': 'JPEG',
        'Bäume/IMG 1.webp.jpg': 'JPEG',
        'Bäume/IMG 1.png': 'PNG',
        'cats/Omas [2] 100%.jpeg': 'JPEG',
        'cats/a.tiff.png': 'PNG',
        'cats/wrong.png.jpg': 'JPEG',
      },
    )
    for name, image in written.items():
      self.assertEqual(image.size, (10, 8), name)
    paths, _, names = folders.list_images(str(self.out), 'train')
    folders.check_files(paths)
    self.assertEqual(names, ('Bäume', 'cats'))
    self.assertEqual((self.source / 'Bäume/IMG 1.JPG').read_bytes(), jpeg)

  def read_all(self) -> dict[str, bytes]:
    return {
      str(path.relative_to(self.out)): path.read_bytes()
      for path in self.out.rglob('*')
      if path.is_file()
    }

  def test_a_folder_is_added_to(self):
    for name in ('cats/a.jpg', 'cats/b.tiff', 'cats/c.png'):
      kind = 'TIFF' if name.endswith('.tiff') else 'JPEG'  # c is no PNG.
      self.write(name, odd_pictures.encode(_ramp(20, 16), kind))
    self.write('cats/d.txt', b'?')
    self.assertEqual(self.prepare().num_written, 3)
    before = self.read_all()
    self.assertEqual(
      set(before), {'cats/a.jpg', 'cats/b.tiff.png', 'cats/c.png.jpg'}
    )
    self.write(
      'cats/a.jpg', odd_pictures.encode(_ramp(40, 32), 'JPEG')
    )  # Is left.
    self.write('Bäume/x.jpg', odd_pictures.encode(_ramp(20, 16), 'JPEG'))
    self.write('cats/e.webp', odd_pictures.encode(_ramp(20, 16), 'WEBP'))
    report = self.prepare()
    self.assertEqual((report.num_written, report.num_there), (2, 3))
    self.assertEqual(report.left_out, ('cats/d.txt is not an image',))
    after = self.read_all()
    self.assertEqual({name: after[name] for name in before}, before)
    self.assertEqual(
      set(after) - set(before), {'Bäume/x.jpg', 'cats/e.webp.jpg'}
    )
    report = self.prepare()
    self.assertEqual((report.num_written, report.num_there), (0, 5))
    self.assertEqual(self.read_all(), after)
    self.assertEmpty([p for p in self.out.parent.iterdir() if p != self.out])

  def test_heic_by_an_optional_package(self):
    """A stand-in for the package lets Pillow read what begins as HEIC does."""

    def register():
      def opened(file, name):
        del file, name
        image = _ramp(20, 16)
        image.format = 'HEIF'
        return image

      PIL.Image.register_open('HEIF', opened, lambda head: b'ftypheic' in head)

    self.write('cats/iphone.HEIC', b'\0\0\0\x18ftypheic')
    package = types.SimpleNamespace(register_heif_opener=register)
    with mock.patch.dict(sys.modules, pillow_heif=package):
      self.addCleanup(PIL.Image.OPEN.pop, 'HEIF')
      self.addCleanup(PIL.Image.ID.remove, 'HEIF')
      self.assertEqual(self.prepare().num_written, 1)
    with PIL.Image.open(self.out / 'cats/iphone.HEIC.jpg') as image:
      self.assertEqual((image.format, image.size), ('JPEG', (10, 8)))

  def test_more_pixels_than_pillow_takes(self):
    self.write('cats/huge.jpg', odd_pictures.encode(_ramp(200, 160), 'JPEG'))
    with mock.patch.object(PIL.Image, 'MAX_IMAGE_PIXELS', 100):
      with self.assertRaisesRegex(errors.DataError, 'pixels, too many'):
        folders.check_files([str(self.source / 'cats/huge.jpg')])
      self.assertEqual(self.prepare().num_written, 1)
      self.assertEqual(PIL.Image.MAX_IMAGE_PIXELS, 100)

  def test_a_name_that_is_not_utf_8(self):
    self.write('cats/\udce9.jpg', odd_pictures.encode(_ramp(20, 16), 'JPEG'))
    self.write('cats/\udcff.txt', b'?')
    report = self.prepare()
    self.assertEqual(report.left_out, (r'cats/\xff.txt is not an image',))
    self.assertTrue((self.out / 'cats/\udce9.jpg').exists())

  def assert_refused(self, message: str):
    before = set(self.source.parent.rglob('*'))
    with self.assertRaisesRegex(errors.DataError, message):
      self.prepare()
    left = set(self.source.parent.rglob('*')) - before
    self.assertLessEqual(left, {self.out.parent})

  def test_refusals(self):
    self.assert_refused('No file in .* is an image')
    self.write('cats/a.txt', b'?')
    self.assert_refused('No file in .* such as cats/a.txt is not an image')
    self.write('cats/a.png', odd_pictures.encode(_ramp(9, 9), 'PNG'))
    self.out.parent.mkdir(exist_ok=True)
    self.out.write_text('')
    self.assert_refused('is a file')
    self.out = self.source / 'photos'
    self.assert_refused('is inside')
    self.source = self.source / 'nowhere'
    self.assert_refused('There is no folder')


if __name__ == '__main__':
  absltest.main()
