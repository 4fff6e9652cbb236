"""Emotion from the sound of a Finnish corpus laid out as a folder; else as `configs/finetune/ravdess.py`.

python -m data_prep folder --source puhe --manifest puhe/tiedot.csv --output prepared/finnish --split-by speaker \
    --column tiedosto=path --column puhuja=speaker --column tunne=emotion \
    --emotion-word neutraali=neutral --emotion-word ilo=happy --emotion-word suru=sad --emotion-word viha=angry
mmpretrain run --config=configs/finetune/finnish_folder.py

Nothing in it is of a language: the clusters are of the corpus itself. Folds of speakers take the place of a protocol
that names them; those of fold 1 are left out of pretraining. Not yet run.
"""

from configs.finetune import ravdess
from mmpretrain.config import CorpusConfig, RunConfig, emotion


def get_config() -> RunConfig:
    config = ravdess.get_config()
    config.workdir = "runs/finnish"
    config.data.corpora = (CorpusConfig("prepared/finnish"),)
    config.data.exclude_folds = (1,)
    config.finetune.tasks = (emotion("neutral", "happy", "sad", "angry"),)
    config.finetune.protocol = "speakers-5"
    config.finetune.folds = (1,)
    return config
