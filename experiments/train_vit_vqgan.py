"""Trains the tokenizer, ViT-VQGAN (paper 3 and 5.1).

  ./bazelw run //experiments:train_vit_vqgan -- \
    --workdir=runs/tokenizer --preset=vit_vqgan_ss --data=imagenet2012

A run that was stopped goes on when it is started again; --workdir is enough
then, and --steps or another schedule may be given to train longer. The sizes of
the Transformers come with a preset or by --set=model.encoder.width=384 and the
like; every other setting has a flag.

The decoder alone is fine-tuned, so that all codes stay as they are, by

  ./bazelw run //experiments:train_vit_vqgan -- \
    --workdir=runs/finetuned --finetune_decoder_of=runs/tokenizer --steps=1000

which starts from the settings of that run, unless --preset or --config is
given.
"""

import dataclasses
import os

from absl import flags
from etils import epy

from experiments import flag_help
from experiments import flags as flags_lib
from vim_tf import config as config_lib
from vim_tf import presets
from vim_tf.training import workdir as workdir_lib

with epy.lazy_imports():  # TensorFlow waits until flags are checked.
  from vim_tf.jobs import train_tokenizer

MODEL = (
  flags_lib.Setting(
    'image_size',
    ('data.image_size', 'model.image_size'),
    '[model] Height and width of images, in pixels (5.1).',
  ),
  flags_lib.Setting(
    'patch_size',
    ('model.patch_size',),
    '[model] Height and width of a patch, in pixels (3.1).',
  ),
  flags_lib.Setting(
    'codebook_size', ('model.codebook_size',), '[model] Codes (3.2).'
  ),
  flags_lib.Setting(
    'code_dim', ('model.code_dim',), '[model] Width of the lookup (3.2).'
  ),
  flags_lib.Setting(
    'l2_normalize',
    ('model.l2_normalize',),
    '[model] true: compare l2-normalised codes (3.2).',
    boolean=True,
  ),
  flags_lib.Setting(
    'logit_laplace',
    ('model.logit_laplace',),
    '[model] true: 6 output channels, of a logit-laplace distribution (3.3).',
    boolean=True,
  ),
  flags_lib.Setting(
    'output_mlp',
    ('model.output_mlp',),
    '[model] true: an MLP with tanh follows each Transformer (3.1).',
    boolean=True,
  ),
  flags_lib.Setting(
    'positions',
    ('model.positions',),
    '[model] Positions: learned, factorized or sincos.',
  ),
  flags_lib.Setting(
    'backbone',
    ('model.backbone',),
    '[model] vit, or the CNN of VQGAN: cnn (Table 4).',
  ),
  flags_lib.Setting(
    'cnn_multiplier',
    ('model.cnn_multiplier',),
    '[model] Channel multiplier of the cnn: 1 or 2 in the paper (Table 4).',
  ),
)

LOSSES = tuple(
  flags_lib.Setting(f'{name}_weight', (f'losses.{name}',), f'[loss] {text}')
  for name, text in (
    ('codebook', 'Weight of the codebook term of L_VQ (3.3).'),
    ('commitment', 'Weight of the commitment term of L_VQ, beta (3.3).'),
    ('l2', 'Weight of the squared error (3.3).'),
    ('l1', 'Weight of the absolute error; not in the paper.'),
    ('logit_laplace', 'Weight of the logit-laplace likelihood (3.3).'),
    ('perceptual', 'Weight of LPIPS; 0 for linear probes (3.3).'),
    ('adversarial', 'Weight of the discriminator (3.3).'),
  )
) + (
  flags_lib.Setting(
    'logit_laplace_form',
    ('losses.logit_laplace_form',),
    '[loss] What the logit-laplace likelihood is of: binned, the 8-bit value '
    "(nats, at least 0), or density, the point (the paper's units).",
  ),
)

PERCEPTUAL = (
  flags_lib.Setting(
    'perceptual_start_step',
    ('perceptual.start_step',),
    '[perceptual] First step with LPIPS in the loss.',
  ),
  flags_lib.Setting(
    'lpips_file',
    ('perceptual.weights_file',),
    '[perceptual] Weights of LPIPS; empty: those of the dependencies.',
  ),
  flags_lib.Setting(
    'lpips_sha256',
    ('perceptual.weights_sha256',),
    '[perceptual] Hash that --lpips_file must have, in hexadecimal.',
  ),
)

ADVERSARIAL = (
  flags_lib.Setting(
    'discriminator',
    ('adversarial.discriminator',),
    '[adversarial] stylegan2 (3.3) or patchgan (Table 4).',
  ),
  flags_lib.Setting(
    'discriminator_multiplier',
    ('adversarial.channel_multiplier',),
    "[adversarial] Factor of the discriminator's channels.",
  ),
  flags_lib.Setting(
    'discriminator_augment',
    ('adversarial.augment',),
    "[adversarial] true: augment the discriminator's input (small data).",
    boolean=True,
  ),
  flags_lib.Setting(
    'gan_loss',
    ('adversarial.loss',),
    '[adversarial] non_saturating or hinge.',
  ),
  flags_lib.Setting(
    'r1_gamma',
    ('adversarial.r1_gamma',),
    '[adversarial] Weight of the R1 penalty, whose gradient is by images in '
    '[-1, 1] as in StyleGAN2; 0: none.',
  ),
  flags_lib.Setting(
    'r1_interval',
    ('adversarial.r1_interval',),
    '[adversarial] Steps from one R1 penalty to the next, at least 1.',
  ),
  flags_lib.Setting(
    'adversarial_start_step',
    ('adversarial.start_step',),
    '[adversarial] First step with a discriminator.',
  ),
  flags_lib.Setting(
    'adaptive_weight',
    ('adversarial.adaptive_weight',),
    "[adversarial] true: weigh by VQGAN's ratio of gradient norms.",
    boolean=True,
  ),
)

CODEBOOK = (
  flags_lib.Setting(
    'init_from_data',
    ('codebook.init_from_data',),
    '[codebook] true: codes start as encoder outputs.',
    boolean=True,
  ),
  flags_lib.Setting(
    'init_step',
    ('codebook.init_step',),
    '[codebook] Step at which they do; none is used before.',
  ),
  flags_lib.Setting(
    'revival_interval',
    ('codebook.revival_interval',),
    '[codebook] Steps from one revival of unused codes to the next; 0: none.',
  ),
  flags_lib.Setting(
    'revival_steps',
    ('codebook.revival_steps',),
    '[codebook] Step after which revival ends.',
  ),
)

# The paper trains both networks alike. What the discriminator has of its own
# is off by default (clipping) or belongs to the tokenizer alone.
_OWN = ('clip_norm', 'ema_decay', 'accumulate')
_ACCUMULATE = (
  ' They equal the whole batch, but for what compares its images: the minibatch'
  ' deviation of stylegan2, in groups of 4, and the adaptive weight.'
)


def _of_both(setting: flags_lib.Setting) -> flags_lib.Setting:
  """A flag of the tokenizer's optimizer, which sets the other one as well."""
  if setting.flag == 'accumulate':
    return dataclasses.replace(setting, help=setting.help + _ACCUMULATE)
  if setting.flag in _OWN:
    return setting
  return dataclasses.replace(
    setting, paths=(*setting.paths, _of_discriminator(setting).paths[0])
  )


def _of_discriminator(setting: flags_lib.Setting) -> flags_lib.Setting:
  """The same flag of the discriminator's optimizer."""
  (path,) = setting.paths
  text = setting.help.removeprefix('[optimizer] ')
  return flags_lib.Setting(
    f'discriminator_{setting.flag}',
    (f'discriminator_{path}',),
    f"[discriminator's optimizer] {text}"
    + ('' if setting.flag in _OWN else f' Else --{setting.flag} sets it too.'),
  )


SETTINGS = (
  *flags_lib.RUN,
  *flags_lib.DATA,
  *map(_of_both, flags_lib.OPTIMIZER),
  *(
    _of_discriminator(setting)
    for setting in flags_lib.OPTIMIZER
    if setting.flag not in ('ema_decay', 'accumulate')
  ),
  *MODEL,
  *LOSSES,
  *PERCEPTUAL,
  *ADVERSARIAL,
  *CODEBOOK,
)

flags_lib.define_run_flags(presets.STAGE1, 'vit_vqgan_ss')
flags_lib.define_fault_flags()
flags_lib.define_new_data_flag()
for setting in SETTINGS:
  setting.define()
FINETUNE = flags.DEFINE_string(
  'finetune_decoder_of',
  None,
  '[run] Working directory of a run whose decoder alone is trained on; its '
  'settings are the defaults, its codes stay.',
)
flags.mark_flag_as_required('workdir')


def finetuning(folder: str) -> config_lib.Stage1Config:
  """The settings of a run, changed so as to fine-tune its decoder.

  Args:
    folder: The run's working directory.

  Returns:
    Its settings without help for the codebook, which stays as it is. The
    folder is kept as an absolute path, so that the new run can go on from
    anywhere.

  Raises:
    WorkdirError: If it is no working directory of a stage-1 run.
  """
  config = workdir_lib.read_config(folder, 'vit_vqgan', config_lib.Stage1Config)
  return dataclasses.replace(
    config,
    codebook=config_lib.CodebookConfig(),
    finetune_decoder_of=os.path.abspath(folder),
  )


def main():
  """Trains with the settings of the flags."""
  start = None
  if FINETUNE.value:
    start = finetuning(FINETUNE.value)
  config = flags_lib.config_from_flags(
    presets.stage1, SETTINGS, 'vit_vqgan', config_lib.Stage1Config, start
  )
  if start is not None:
    config = dataclasses.replace(
      config, finetune_decoder_of=start.finetune_decoder_of
    )
  strategy = flags_lib.strategy()  # Before TensorFlow computes anything.
  train_tokenizer.train(
    config,
    flags.FLAGS.workdir,
    strategy,
    faults=flags_lib.faults(),
    accept_new_data=flags.FLAGS.accept_new_data,
  )


if __name__ == '__main__':
  flags_lib.run(
    main,
    SETTINGS,
    flag_help.Presets(
      presets.stage1,
      presets.ABOUT_STAGE1,
      (
        'data.name',
        *('model.image_size', 'model.patch_size', 'model.codebook_size'),
        *('model.encoder.num_blocks', 'model.encoder.width'),
        *('model.decoder.num_blocks', 'model.decoder.width'),
        *('run.num_steps', 'run.batch_size'),
      ),
    ),
  )
