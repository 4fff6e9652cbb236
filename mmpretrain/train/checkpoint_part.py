"""Some arrays of a checkpoint, by name, from a folder or an object store: an encoder, say, without optimizer moments.

Orbax keeps the arrays of a tree in one key-value store (OCDBT, on whatever holds the files), each under the names on
the way to it, joined by dots; `_METADATA` lists them. TensorStore reads those that are asked for and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

import numpy as np

from mmpretrain.addresses import Place, context
from mmpretrain.files import DamagedError
from mmpretrain.output import BRIEF, one_line
from mmpretrain.train.sealed_items import STATE, check_items

_TREE = "_METADATA"


def check_whole(checkpoint: Place) -> None:
    """Raises DamagedError where a file of the checkpoint is not what was written.

    Digests are of whole files, in which encoder and moments lie side by side: in an object store, which guards its
    bytes itself, they are not compared, so that only what is asked for is read.
    """
    if checkpoint.local:
        check_items(checkpoint.path)


def array_names(checkpoint: Place) -> frozenset[str]:
    """Of all arrays. Raises FileNotFoundError without a checkpoint, and DamagedError."""
    text = (checkpoint / STATE).read(_TREE)
    if text is None:
        raise FileNotFoundError(f"{checkpoint} is no whole checkpoint: it has no {STATE}/{_TREE}")
    try:
        tree = json.loads(text)["tree_metadata"].values()
        return frozenset(".".join(str(key["key"]) for key in entry["key_metadata"]) for entry in tree)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{checkpoint}/{STATE}/{_TREE} is damaged ({type(error).__name__}: {error})") from error


def read_arrays(checkpoint: Place, names: Iterable[str]) -> dict[str, np.ndarray]:
    """These arrays, of `array_names`, whole, by name. Raises DamagedError where one cannot be read."""
    import tensorstore

    store = {"driver": "ocdbt", "base": (checkpoint / STATE).url}

    def begin(name: str) -> tensorstore.Future:
        spec = {"driver": "zarr", "kvstore": {**store, "path": f"{name}/"}}
        return tensorstore.open(spec, read=True, open=True, context=context())

    arrays = {}
    opening = {name: begin(name) for name in names}
    for name, opened in opening.items():
        try:
            arrays[name] = np.asarray(opened.result().read().result())
        except Exception as error:  # whatever half a file brings about in TensorStore
            raise DamagedError(f"{checkpoint}: {name} cannot be read ({one_line(error, BRIEF)})") from error
    return arrays
