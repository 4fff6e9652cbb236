"""The small language of the embedded corpus: phone-like units, a lexicon, sentences, and when each unit is spoken.

Each letter of a word is a unit. Several units share a viseme (p b m; f v; t n s l; u w; ...) and several sound alike
under noise (m n; p t k; f s x; u w o), so that neither modality tells all of them apart.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from data_prep.synthesis.draws import stream

CONTROL_HZ = 100  # rate of everything that articulates; four control points a video frame


@dataclasses.dataclass(frozen=True)
class Unit:
    """Targets of one unit. Formants in Hz of a medium tract; voice and noise are amplitudes, 1 for a full vowel.

    opening: of the lips, 0 closed to 1. spread: -1 rounded to 1 spread. teeth: 0 hidden to 1. hold: how firmly the
    lips keep their target against the neighbours. stop: silent first, released at the end.
    """

    name: str
    formants: tuple[float, float, float]
    voice: float
    noise: float
    noise_hz: float
    seconds: float
    opening: float
    spread: float
    teeth: float = 0.0
    hold: float = 1.0
    stop: bool = False


INVENTORY = (
    Unit("_", (500, 1500, 2500), 0.00, 0.00, 3000, 0.16, 0.05, 0.0, hold=0.6),
    Unit("a", (760, 1300, 2500), 1.00, 0.00, 3000, 0.13, 1.00, 0.1),
    Unit("e", (500, 1850, 2550), 0.90, 0.00, 3000, 0.11, 0.55, 0.5, teeth=0.3),
    Unit("i", (300, 2250, 3000), 0.75, 0.00, 3000, 0.10, 0.30, 1.0, teeth=0.5),
    Unit("o", (480, 880, 2400), 0.90, 0.00, 3000, 0.12, 0.60, -0.7),
    Unit("u", (320, 780, 2300), 0.75, 0.00, 3000, 0.10, 0.25, -1.0),
    Unit("m", (280, 1050, 2250), 0.35, 0.00, 3000, 0.08, 0.00, 0.0, hold=4.0),
    Unit("n", (290, 1550, 2550), 0.35, 0.00, 3000, 0.08, 0.28, 0.2, teeth=0.4, hold=0.8),
    Unit("l", (350, 1200, 2700), 0.45, 0.00, 3000, 0.08, 0.32, 0.2, teeth=0.3, hold=0.8),
    Unit("w", (300, 700, 2250), 0.45, 0.00, 3000, 0.08, 0.18, -1.0, hold=2.0),
    Unit("p", (350, 1000, 2300), 0.00, 0.35, 1000, 0.09, 0.00, 0.0, hold=4.0, stop=True),
    Unit("b", (250, 1000, 2300), 0.18, 0.20, 900, 0.08, 0.00, 0.0, hold=4.0, stop=True),
    Unit("t", (350, 1700, 2700), 0.00, 0.40, 4200, 0.09, 0.25, 0.3, teeth=0.6, stop=True),
    Unit("k", (350, 1900, 2400), 0.00, 0.40, 2200, 0.09, 0.38, 0.1, hold=0.3, stop=True),
    Unit("f", (400, 1200, 2400), 0.00, 0.22, 4800, 0.10, 0.10, 0.1, teeth=1.0, hold=3.0),
    Unit("v", (300, 1200, 2400), 0.30, 0.10, 4500, 0.08, 0.10, 0.1, teeth=1.0, hold=3.0),
    Unit("s", (350, 1700, 2700), 0.00, 0.40, 5600, 0.11, 0.20, 0.5, teeth=0.8, hold=1.5),
    Unit("x", (350, 1800, 2500), 0.00, 0.45, 3200, 0.11, 0.28, -0.8, teeth=0.4, hold=2.0),
)
UNITS = tuple(unit.name for unit in INVENTORY)
SILENCE = UNITS.index("_")
VOWELS = "aeiou"

LEXICON = (
    "mano", "pali", "tubo", "kela", "sim", "wonu", "fa", "xika", "bolem", "nutis", "vepo", "lasu",
    "ki", "pamex", "towa", "tesi", "fulo", "mixu", "abek", "neto", "sov", "wi", "bina", "kofal",
    "upe", "xalo", "tevi", "mum", "lipos", "oka", "sefu", "vaxin", "nob", "wetam",
)  # fmt: skip


def _follow_probs() -> np.ndarray:
    """[word, next word]: a few favourite followers have most of the mass; no word follows itself."""
    rng = stream("language")
    num_words = len(LEXICON)
    probs = np.tile(1.0 / np.arange(3, num_words + 3), (num_words, 1))  # frequent and rare words
    np.fill_diagonal(probs, 0.0)
    probs *= 0.35 / probs.sum(axis=1, keepdims=True)
    for word in range(num_words):
        others = np.delete(np.arange(num_words), word)
        probs[word, rng.choice(others, 4, replace=False)] += 0.65 * np.array([0.4, 0.3, 0.2, 0.1])
    return probs


FOLLOW_PROBS = _follow_probs()


def sample_sentence(rng: np.random.Generator) -> tuple[str, ...]:
    """Words, each drawn given the one before, until there are 11 to 16 units or a few more."""
    num_units = rng.integers(11, 17)
    words = [int(rng.integers(len(LEXICON)))]
    while sum(len(LEXICON[word]) for word in words) < num_units:
        words.append(int(rng.choice(len(LEXICON), p=FOLLOW_PROBS[words[-1]])))
    return tuple(LEXICON[word] for word in words)


@dataclasses.dataclass(frozen=True)
class Timeline:
    """What is spoken when, on K = 4 T + 1 control points; point k is at k / 100 s.

    unit_K: int32. place_K: from 0 to 1 within the unit. stress_A, stress_sec_A: how strong each word's accent is and
    the middle of the vowel that carries it.
    """

    num_frames: int
    unit_K: np.ndarray
    place_K: np.ndarray
    stress_A: np.ndarray
    stress_sec_A: np.ndarray

    @property
    def units_T(self) -> np.ndarray:
        """int32 [T], the unit at the centre of each video frame."""
        return self.unit_K[2::4]


def time_sentence(words: tuple[str, ...], slowness: float, rng: np.random.Generator) -> Timeline:
    """Gives every unit a duration (60 to 200 ms), with silence around the sentence and sometimes between words."""
    units, seconds, stress, stressed = [SILENCE], [rng.uniform(0.10, 0.25)], [], []
    for position, word in enumerate(words):
        if position and rng.random() < 0.25:
            units.append(SILENCE)
            seconds.append(rng.uniform(0.08, 0.20))
        accented = next(i for i, letter in enumerate(word) if letter in VOWELS)
        stress.append(rng.uniform(0.3, 1.0))
        stressed.append(len(units) + accented)
        for i, letter in enumerate(word):
            unit = UNITS.index(letter)
            length = INVENTORY[unit].seconds * slowness * np.exp(0.15 * rng.standard_normal())
            units.append(unit)
            seconds.append(np.clip(length * (1.0 + 0.2 * stress[-1] * (i == accented)), 0.06, 0.20))
    units.append(SILENCE)
    seconds.append(rng.uniform(0.10, 0.25))

    ends = np.cumsum(seconds)
    num_frames = int(np.ceil(ends[-1] * CONTROL_HZ / 4))
    now_K = np.arange(4 * num_frames + 1) / CONTROL_HZ
    ends[-1] = now_K[-1] + 1e-6
    starts = np.concatenate([[0.0], ends[:-1]])
    segment_K = np.searchsorted(ends, now_K, side="right")
    place_K = (now_K - starts[segment_K]) / (ends - starts)[segment_K]
    middle_sec = (starts + ends) / 2
    unit_K = np.array(units, np.int32)[segment_K]
    return Timeline(num_frames, unit_K, place_K, np.array(stress), middle_sec[stressed])


def coarticulate(target_K: np.ndarray, hold_K: np.ndarray, width: int) -> np.ndarray:
    """Smooths the targets of successive units over `width` control points, each weighted by how firmly it is held."""
    window = np.hanning(width + 2)[1:-1]
    pad = (width // 2, width - 1 - width // 2)

    def smooth(track_K):
        return np.convolve(np.pad(track_K, pad, mode="edge"), window, "valid")

    return smooth(target_K * hold_K) / smooth(hold_K)
