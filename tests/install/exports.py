#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The shared library exports what the public headers declare, and no more.

usage: exports.py INCLUDE_DIR LIBRARY MAP CC...

Compares three sets of names, each both ways: the functions that the headers
declare, the names in the version script, and the library's dynamic symbols.
"""

import pathlib
import re
import subprocess
import sys


def own_text(cc, include, header):
    """A header after the preprocessor, without the headers of others."""
    flags = ["-E", "-x", "c", "-std=gnu17", "-D_GNU_SOURCE", "-I", str(include), "-"]
    output = subprocess.run(cc + flags, input=f"#include <viodev/{header}>\n", check=True, stdout=subprocess.PIPE,
                            text=True).stdout
    own, lines = False, []
    for line in output.splitlines():
        marker = re.match(r'# \d+ "(.*?)"', line)
        if marker:
            own = pathlib.Path(marker[1]).parent == include / "viodev"
        elif own:
            lines.append(line)
    return " ".join(lines)


def declared(text):
    """The functions of external linkage in C declarations."""
    text = re.sub(r"__attribute__\s*\(\(.*?\)\)\s*(?=;)", "", text)
    text = re.sub(r"_Static_assert\s*\(.*?\)\s*;", "", text)
    found = True
    while found:  # inside out; a body ends its definition, members do not
        text, found = re.subn(r"\)\s*\{[^{}]*\}", ");", text)
        if not found:
            text, found = re.subn(r"\{[^{}]*\}", " ", text)
    names = set()
    for declaration in text.split(";"):
        if re.match(r"\s*(typedef|static)\b", declaration):
            continue
        match = re.match(r"[^()]*?\b(\w+)\s*\(", declaration)
        if match:
            names.add(match[1])
    return names


def in_script(text):
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    return set(re.findall(r"(\S+);", text[text.index("global:"):text.index("local:")]))


def exported(library):
    lines = subprocess.run(["nm", "-D", "--defined-only", library], check=True, stdout=subprocess.PIPE, text=True).stdout
    return {line.split()[-1].split("@")[0] for line in lines.splitlines() if line.split()[1] != "A"}


def main():
    include, library, script, cc = pathlib.Path(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3]), sys.argv[4:]
    headers = sorted(path.name for path in (include / "viodev").glob("*.h"))
    public = set().union(*(declared(own_text(cc, include, header)) for header in headers))
    listed, symbols = in_script(script.read_text()), exported(library)
    failures = [
        *(f"{name}: declared in a public header, not in {script.name}" for name in public - listed),
        *(f"{name}: in {script.name}, not declared in a public header" for name in listed - public),
        *(f"{name}: declared in a public header, not exported" for name in public - symbols),
        *(f"{name}: exported, not declared in a public header" for name in symbols - public),
    ]
    if len(headers) < 5 or len(public) < 50:
        failures.append(f"only {len(public)} functions found in {len(headers)} headers")
    print("\n".join(sorted(failures)) or f"{len(public)} functions in {len(headers)} headers")
    return 1 if failures else 0


sys.exit(main())
