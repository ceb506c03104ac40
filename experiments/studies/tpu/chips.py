"""The chips that programs are compiled for, with their makers' figures."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
  """A kind of TPU.

  Attributes:
    memory: Bytes of its memory (HBM).
    flops: bfloat16 FLOPs a second, at most.
    link_rate: Bytes a second that it sends to other chips, over all links.
    topologies: By number of chips the name of a slice, as libtpu knows it.
    options: What else libtpu wants to know of it.
  """

  memory: float
  flops: float
  link_rate: float
  topologies: dict[int, str]
  options: dict[str, str] = dataclasses.field(default_factory=dict)


# cloud.google.com/tpu/docs: the pages of v4, v5e and v5p. The links of v4 are
# six of 50 GB/s (Jouppi et al., 2023, arXiv:2304.01433).
CHIPS = {
  'v4': Chip(
    memory=32 * 2**30,
    flops=275e12,
    link_rate=6 * 50e9,
    topologies={1: '2x2x1', 8: '2x2x2', 128: '4x4x8'},
    # Both cores of a chip as one device, which TPUStrategy has, too.
    options={'chip_config_name': 'megacore'},
  ),
  'v5e': Chip(
    memory=16 * 2**30,
    flops=197e12,
    link_rate=1600e9 / 8,
    topologies={1: '2x2', 8: '2x4', 128: '8x16'},
  ),
  'v5p': Chip(
    memory=95 * 2**30,
    flops=459e12,
    link_rate=4800e9 / 8,
    topologies={1: '2x2x1', 8: '2x2x2', 128: '4x4x8'},
  ),
}
