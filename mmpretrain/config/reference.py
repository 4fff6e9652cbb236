"""What only AV-HuBERT's own code does, and no recipe of ours: all of it off unless set.

`presets.reference_quirks` turns it on, to compare with the reference number for number (docs/reference.md).
"""

# No `from __future__ import annotations`: the command line reads the fields' types as objects.
import dataclasses

from mmpretrain.config.ranges import one_of, setting, within


@dataclasses.dataclass
class ReferenceModelConfig:
    """Of the network. No released model has any of it."""

    post_norm: bool = False  # layers normalise their sums instead of their branches' inputs (deep ones train worse)
    dot_similarity: bool = False  # dot product of a projected frame and a cluster's embedding, not their cosine
    tied_projection: bool = False  # several codebooks share one projection instead of having one each


@dataclasses.dataclass
class ReferenceRoundConfig:
    """Of a round of pretraining."""

    # 4: clusters of all MFCC rows, of 10 ms each, of which a frame takes its first
    targets_per_frame: int = setting(1, one_of(1, 4, text="1 or 4"))
    # classes before the clusters that are never a target (a released checkpoint has 4)
    dead_classes: int = setting(0, within(0, 65_536, "0 or more, up to 65_536"))
    equal_mask_counts: bool = False  # every clip keeps as many masked frames as the one with the fewest in the batch
    zero_lone_clip: bool = False  # a batch of one clip: masked inputs read 0, not the mask vector or other pictures
    whole_batch_dropout: bool = False  # modality dropout is drawn once for all clips of a batch
    count_padding: bool = False  # batch statistics and penalty count padding and unused pictures too
