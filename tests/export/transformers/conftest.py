"""What `transformers` copies to load a folder goes to a folder of the tests' own."""

import os
import tempfile

if "HF_HOME" not in os.environ:
    os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="hf-")
