#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Until all have changed to it: pytest-3 tests/guest [--viodev BIN] [--kit DIR] [-v] -k "NAME or NAME"."""

import os
import pathlib
import sys

WITH_VALUE = ("--viodev", "--kit")

here, args, names = str(pathlib.Path(__file__).parent), [], []
words = iter(sys.argv[1:])
for word in words:
    if not word.startswith("-"):
        names.append(word)
        continue
    args.append(word)
    if word in WITH_VALUE:
        args.append(next(words))
os.execvp("pytest-3", ["pytest-3", here, *args, *(["-k", " or ".join(names)] if names else [])])
