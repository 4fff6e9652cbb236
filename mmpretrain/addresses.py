"""Reading a folder that may lie in an object store: gs://BUCKET/NAME, s3://BUCKET/NAME, or a path. Nothing is written.

TensorStore, which reads checkpoints, reads the rest of such a folder too, with the credentials that it finds as its
documentation says (`gcloud auth application-default login`, the files and variables of the AWS tools).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorstore

SCHEMES = ("gs", "s3", "memory")  # memory://: of this process, as tests have it
MAX_RETRIES = 5


class Place:
    """A folder by its path or address. Raises ValueError for an address of another kind.

    What cannot be reached is an OSError of one line.
    """

    def __init__(self, given: str | Path):
        scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/+", str(given))  # `Path` makes one / of two
        if scheme and scheme[1] not in SCHEMES:
            raise ValueError(f"{given}: an address begins with gs:// or s3://; a folder is given by its path")
        self.local = not scheme
        self.name = f"{scheme[1]}://{str(given)[scheme.end() :].strip('/')}" if scheme else str(given)

    def __str__(self) -> str:
        return self.name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Place) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __truediv__(self, name: str) -> Place:
        return Place(f"{self.name}/{name}")

    @property
    def path(self) -> Path:
        assert self.local, f"{self} is no path"
        return Path(self.name)

    @property
    def last(self) -> str:
        """The last part of its name."""
        return Path(self.name).name

    @property
    def above(self) -> Place:
        """The folder that it is in."""
        return Place(self.path.parent) if self.local else Place(self.name.rpartition("/")[0])

    @property
    def url(self) -> str:
        """As TensorStore takes it."""
        return f"{self.path.absolute().as_uri() if self.local else self.name}/"

    def read(self, name: str) -> bytes | None:
        """The content of a file in it; None: there is no such file."""
        found = self._ask(lambda: self._store.read(name).result())
        return found.value if found.state == "value" else None

    def files(self) -> list[str]:
        """The names of all files in it and below, in order."""
        return sorted(name.decode() for name in self._ask(lambda: self._store.list().result()))

    @functools.cached_property
    def _store(self) -> tensorstore.KvStore:
        import tensorstore

        return tensorstore.KvStore.open(self.url, context=context()).result()

    def _ask(self, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except Exception as error:  # TensorStore has ValueError for all that may happen on the way
            raise OSError(f"{self} cannot be read ({' '.join(str(error).split())[:200]})") from error


@functools.cache
def context() -> tensorstore.Context:
    """What all that is read shares: how often is tried again what the network refuses, and what memory:// holds."""
    import tensorstore

    again = {"max_retries": MAX_RETRIES}
    return tensorstore.Context({"gcs_request_retries": again, "s3_request_retries": again})
