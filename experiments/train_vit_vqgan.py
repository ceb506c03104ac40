"""Trains the tokenizer, ViT-VQGAN (paper 3 and 5.1).

  ./bazelw run //experiments:train_vit_vqgan -- \
    --workdir=runs/tokenizer --preset=vit_vqgan_ss --data=imagenet2012

A run that was stopped goes on when it is started again.
"""

from absl import flags

from experiments import cli, stage1
from vim_tf import presets

SETTINGS = (
  *cli.RUN,
  *cli.DATA,
  *cli.OPTIMIZER,
  cli.Setting(
    'image_size',
    ('data.image_size', 'model.image_size'),
    '[model] Height and width of images, in pixels (5.1).',
  ),
  cli.Setting(
    'patch_size',
    ('model.patch_size',),
    '[model] Height and width of a patch, in pixels (3.1).',
  ),
  cli.Setting(
    'codebook_size', ('model.codebook_size',), '[model] Codes (3.2).'
  ),
  cli.Setting(
    'code_dim', ('model.code_dim',), '[model] Width of the lookup (3.2).'
  ),
  cli.Setting(
    'l2_normalize',
    ('model.l2_normalize',),
    '[model] true: compare l2-normalised codes (3.2).',
  ),
  cli.Setting(
    'logit_laplace',
    ('model.logit_laplace',),
    '[model] true: 6 output channels, of a logit-laplace distribution (3.3).',
  ),
  *(
    cli.Setting(f'{name}_weight', (f'losses.{name}',), f'[loss] {text}')
    for name, text in (
      ('codebook', 'Weight of the codebook term of L_VQ (3.3).'),
      ('commitment', 'Weight of the commitment term of L_VQ, beta (3.3).'),
      ('l2', 'Weight of the squared error (3.3).'),
      ('l1', 'Weight of the absolute error; not in the paper.'),
      ('logit_laplace', 'Weight of the logit-laplace likelihood (3.3).'),
      ('perceptual', 'Weight of LPIPS; 0 for linear probes (3.3).'),
      ('adversarial', 'Weight of the discriminator (3.3).'),
    )
  ),
)

cli.define_run_flags(presets.STAGE1, 'vit_vqgan_ss')
for setting in SETTINGS:
  setting.define()
flags.mark_flag_as_required('workdir')


def main():
  """Trains with the settings of the flags."""
  config = cli.config_from_flags(presets.stage1, SETTINGS)
  stage1.train(config, flags.FLAGS.workdir, cli.strategy())


if __name__ == '__main__':
  cli.run(main)
