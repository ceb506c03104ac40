"""Drives a headless Chromium through its DevTools protocol, over pipes."""

import base64
import fcntl
import json
import os
import pathlib
import select
import shutil
import time

_NAMES = ('chromium', 'chromium-browser', 'google-chrome')
_TIMEOUT = 120.0  # Seconds; a busy machine starts a browser slowly.


def find() -> str | None:
  """Path of a Chromium, or None."""
  return next(filter(None, map(shutil.which, _NAMES)), None)


class Page:
  """One open page.

  Args:
    url: What to open.
    folder: Where the browser may keep its profile.
  """

  def __init__(self, url: str, folder: pathlib.Path):
    self._count = 0
    self._buffer = b''
    from_us, self._write = _pipe()
    self._read, to_us = _pipe()
    # The browser reads its commands at 3 and answers at 4.
    self._process = os.posix_spawn(
      find(),
      [
        'chromium',
        '--headless=new',
        '--no-sandbox',
        '--disable-gpu',
        '--disable-dev-shm-usage',
        '--no-proxy-server',
        '--no-first-run',
        '--window-size=1000,900',
        f'--user-data-dir={folder}',
        '--remote-debugging-pipe',
        'about:blank',
      ],
      {**os.environ, 'HOME': str(folder)},
      file_actions=[
        (os.POSIX_SPAWN_DUP2, from_us, 3),
        (os.POSIX_SPAWN_DUP2, to_us, 4),
        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
      ],
    )
    os.close(from_us)
    os.close(to_us)
    target = self._call('Target.createTarget', url=url)['targetId']
    self._session = self._call(
      'Target.attachToTarget', targetId=target, flatten=True
    )['sessionId']

  def run(self, script: str):
    """The value of an expression; promises are awaited.

    Raises:
      RuntimeError: If it throws.
    """
    found = self._call(
      'Runtime.evaluate',
      session=self._session,
      expression=script,
      awaitPromise=True,
      returnByValue=True,
    )
    if 'exceptionDetails' in found:
      raise RuntimeError(json.dumps(found['exceptionDetails']))
    return found['result'].get('value')

  def wait_for(self, script: str):
    """Waits until an expression is true, and returns its value.

    Raises:
      TimeoutError: If it takes too long.
    """
    end = time.monotonic() + _TIMEOUT
    while time.monotonic() < end:
      value = self.run(script)
      if value:
        return value
      time.sleep(0.1)
    raise TimeoutError(f'This has not come true: {script}')

  def drop(self, content: bytes, kind: str, way: str = 'drop'):
    """Drops a file on the page, as a hand with a mouse would, or pastes it.

    Args:
      content: The file's bytes.
      kind: Its media type.
      way: 'drop' or 'paste'.
    """
    event, key = {
      'drop': ('DragEvent', 'dataTransfer'),
      'paste': ('ClipboardEvent', 'clipboardData'),
    }[way]
    self.run(f"""
      var bytes = new Uint8Array({list(content)});
      var transfer = new DataTransfer();
      transfer.items.add(new File([bytes], 'dropped', {{type: '{kind}'}}));
      document.body.dispatchEvent(new {event}('{way}', {{
          {key}: transfer, bubbles: true, cancelable: true}}));
    """)

  def screenshot(self) -> bytes:
    """The whole page, as a PNG file."""
    found = self._call(
      'Page.captureScreenshot',
      session=self._session,
      captureBeyondViewport=True,
    )
    return base64.b64decode(found['data'])

  def close(self):
    """Ends the browser."""
    self._call('Browser.close')
    os.waitpid(self._process, 0)
    os.close(self._read)
    os.close(self._write)

  def _call(self, method: str, session: str = '', **params) -> dict:
    self._count += 1
    message = {'id': self._count, 'method': method, 'params': params}
    if session:
      message['sessionId'] = session
    data = json.dumps(message).encode() + b'\0'
    while data:
      data = data[os.write(self._write, data) :]
    while True:
      answer = self._receive()
      if answer.get('id') == self._count:
        if 'error' in answer:
          raise RuntimeError(f'{method}: {answer["error"]}')
        return answer['result']

  def _receive(self) -> dict:
    while b'\0' not in self._buffer:
      if not select.select([self._read], [], [], _TIMEOUT)[0]:
        raise TimeoutError('The browser does not answer.')
      data = os.read(self._read, 2**16)
      if not data:
        raise RuntimeError('The browser has ended.')
      self._buffer += data
    message, _, self._buffer = self._buffer.partition(b'\0')
    return json.loads(message)


def _pipe() -> tuple[int, int]:
  """A pipe whose ends are not 3 or 4, and are not inherited."""
  ends = []
  for end in os.pipe():
    ends.append(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10))
    os.close(end)
  return tuple(ends)
