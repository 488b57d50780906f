"""Photos: which there are, whether they can be read, in which part they stand, how they load.

`index.py` → `check.py` → `split.py` → `loading.py`; `decode.py` is the only decoder of all of them.
"""
