"""The people of the embedded corpus: what they say (`language`), who and how they are (`character`), voice and face."""
