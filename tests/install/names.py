#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Files, functions and structs that the documents name exist.

    names.py ROOT DOCUMENT...

Placeholders (`back/net/X.c`, `x_init`, `_len`), products of a build and patterns are left out.
"""

import pathlib
import re
import sys

PATH = re.compile(r"(?:\./)?[\w.-]+(?:/[\w.-]+)*\.(?:c|h|sh|py|map|md|build|toml|1|3)|(?:[\w.-]+/)+")
NAME = re.compile(r"(?:struct )?([A-Za-z]\w*_\w+|[a-z]\w+(?=\(\)|\[\]))(?:\(\)|\[\])?")
PLACEHOLDER = re.compile(r"\bX\b|_X\b|\bx_|_x\b|TARGET|^build")
SOURCES = ("src", "include", "tests", "examples", "bench", "scripts")
ALIASES = {"test.h": "tests/lib/vdrv.h"}


def quoted(document):
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.M | re.S)
    return {words for words in re.findall(r"`([^`]+)`", text) if not PLACEHOLDER.search(words)}


def main():
    root = pathlib.Path(sys.argv[1])
    files = [path for folder in SOURCES for path in (root / folder).rglob("*") if path.is_file()]
    places = {str(path.relative_to(root)) for path in [*files, *root.glob("*"), *root.glob("docs/**/*")]}
    code = set(re.findall(r"\w+", " ".join(path.read_text(errors="replace") for path in files
                                         if path.suffix in (".c", ".h", ".py", ".build"))))
    code |= {path.stem for path in files}
    missing = 0
    for document in map(pathlib.Path, sys.argv[2:]):
        checked = 0
        for words in sorted(quoted(document)):
            if PATH.fullmatch(words):
                path = ALIASES.get(words, words).removeprefix("./")
                found = any(f"/{path}" in f"/{place}/" for place in places)
            elif name := NAME.fullmatch(words):
                found = name[1] in code
            else:
                continue
            checked += 1
            if not found:
                print(f"{document.name}: {words}: not in the tree")
                missing += 1
        print(f"{document.name}: {checked} names")
    sys.exit(missing > 0)


main()
