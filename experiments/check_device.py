"""Tries in minutes all that a long run needs of a device, in tiny.

  ./bazelw run //experiments:check_device -- --strategy=tpu

It trains both stages for a few steps with LPIPS, StyleGAN2, R1 and bfloat16,
goes on from a checkpoint, evaluates, draws samples, and compares the device's
figures with the host's. Run it before a machine is paid for by the day. What
it left is in --out.
"""

from absl import flags
from etils import epy

from experiments import flags as flags_lib

with epy.lazy_imports():  # TensorFlow waits until flags are checked.
  from vim_tf.jobs import check_device, output

OUT = flags.DEFINE_string(
  'out', None, '[output] New or empty folder for the runs.', required=True
)
flags_lib.define_strategy_flags()


def main():
  """Tries everything."""
  strategy = flags_lib.strategy_of_one_process()
  with output.new_folder(OUT.value) as out:
    check_device.run(out, strategy)


if __name__ == '__main__':
  flags_lib.run(main)
