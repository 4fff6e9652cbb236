"""What a head learns, as recipes say it."""

# No `from __future__ import annotations`: the command line reads the fields' types as objects.
import dataclasses

from mmpretrain.config.ranges import above, each, one_of, plain_word, setting, within, words

REGRESSED = ("class", "binary", "ordinal", "value")  # kinds of labels that a regression on a frozen encoder learns


@dataclasses.dataclass
class TaskConfig:
    """What one head learns to tell of labelled clips (data/labels.py)."""

    name: str = setting("emotion", plain_word())  # of the head, and of its metrics: emotion/ua
    column: str = setting("", words())  # of the corpora's labels; "": the one called `name`
    # of the labels (docs/training.md): "class", "votes", "classes", "binary", "ordinal", "value", "embedding" (a class
    # too, whose clips are to lie close together); of every frame "frames" (a class) and "values" (a number), whose
    # column is a track, or of "frames" "words" or "phones" of `alignments`
    kind: str = setting("class", words("a kind of labels"))
    # those that are told apart; clips with another label are left out. Of "ordinal" from the lowest, of "binary" the
    # positive one last; of a column of numbers or a track the numbers, or the names of its numbers, in order
    classes: tuple[str, ...] = setting((), each(words(), distinct=True, text='two or more, e.g. ("neutral", "happy")'))
    # words of the column that are taken for one of the classes: ("excited=happy", "calm=neutral")
    merge: tuple[str, ...] = setting((), each(words(), distinct=True, text='WORD=CLASS, e.g. ("excited=happy",)'))
    # of kinds "value" and "values": the lowest and the highest value that there may be
    range: tuple[float, ...] = setting((-1.0, 1.0), each(within(-1e9, 1e9), least=2, most=2, text="two numbers"))
    # "usual": cross-entropy (of "value" and "values": 1 - CCC; of "embedding": supervised contrastive); or "focal",
    # "squared" or "absolute" error; of "embedding" "triplet"
    loss: str = setting("usual", one_of("usual", "focal", "squared", "absolute", "triplet"))
    focal_gamma: float = setting(2.0, within(0, 100))  # of loss "focal": 0 is cross-entropy
    embedding_dim: int = setting(256, above(0, most=65_536))  # of kind "embedding"
    temperature: float = setting(0.1, above(0, most=1_000))  # of its contrastive loss
    margin: float = setting(0.2, above(0, most=4))  # of its loss "triplet", in squared distance
    # of clips in the loss, by their class: "inverse" to how many training clips of the fold have it, 1 on average
    class_weights: str = setting("none", one_of("none", "inverse"))
    # of frames to a clip: learned weights ("attentive_statistics": mean and deviation by them; "attention": the mean
    # alone), or the plain "mean"
    pooling: str = setting("attentive_statistics", one_of("attentive_statistics", "attention", "mean"))
    # of kind "frames": words with their times in clips, a CSV file (clip,start_s,end_s,word), in place of a track
    alignments: str = setting("", words("a CSV file of words with their times"))
    silence: str = setting("", words())  # of kind "frames": the class that is left out of sequences; "": none
    weight: float = setting(1.0, above(0, most=1_000_000))  # of its loss beside those of other tasks
    # gradient reversal: the head learns the task, and the encoder to make it harder, so many times as much, coming up
    # from 0 over the training; for what is not to be told, such as the column "corpus", which there always is; 0: off
    reversal: float = setting(0.0, within(0, 1_000))


@dataclasses.dataclass
class TextConfig:
    """What is spoken, the label column `text`, heard beside sound and picture (docs/training.md)."""

    encoder: str = setting("", words("the folder of a model of transformers with its tokenizer"))
    # how many turns before it in its dialogue (columns `dialogue`, `turn`) a text is read with; never later ones
    context: int = setting(0, within(0, 1_000))
    max_tokens: int = setting(64, within(1, 512))  # of a text, the first; each keeps two bytes a number of the model
