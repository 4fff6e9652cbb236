"""Under which terms corpora are handed out, for cards of what was trained on them; docs/corpora.md says where from."""

from __future__ import annotations

from collections.abc import Iterable

TERMS = {
    "lrs3": "CC BY-NC-ND 4.0",
    "lrs2": "research only, by signed agreement with the BBC",
    "voxceleb2": "CC BY 4.0 for the metadata; the videos are their owners'",
    "grid": "CC BY 4.0",
    "ravdess": "CC BY-NC-SA 4.0",
    "crema_d": "ODbL 1.0, DbCL 1.0",
    "mead": "research, not commercial",
    "emodb": "free for research",
    "iemocap": "research, no redistribution, by signed request",
    "msp_improv": "research, no redistribution, by signed request",
    "meld": "GPL-3.0 is stated; the pictures are of television",
    "muse": "by signed agreement",
    "synthetic": "none: it is drawn",
}
UNKNOWN = "not known here: they are those of whoever recorded the clips"


def terms_of(corpora: Iterable[str]) -> str:
    """In one line, of each corpus its terms."""
    return "; ".join(f"{name}: {TERMS.get(name, UNKNOWN)}" for name in sorted(set(corpora)))
