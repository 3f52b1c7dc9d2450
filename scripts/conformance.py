#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Which requirements have a test that names them.

Reads the tables of docs/spec/conformance.md and docs/spec/hostile.md and looks
for their ids in the tests: conformance ids as they are (SPLIT-14), the short
ids of hostile.md on lines that say "hostile" (hostile S8, hostile K2). Rows
that no test can show are excused, with the reason, in a table of
docs/conformance-notes.md. Another table there lists rows of features that the
device does not offer: their tests show no more than that, and they are counted
apart.

Fails when a MUST or DESC row of a group in scope has neither test nor excuse.
"""

import argparse
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Chapters of conformance.md that are implemented so far.
IN_SCOPE = {"2", "3", "4", "5", "7", "8", "9", "10", "11", "12", "13"}
BINDING = {"MUST", "DESC"}

LONG_ID = r"(?:[A-Z][A-Z0-9]*-)+L?\d+"
SHORT_ID = r"[SKQDF]\d+[a-h]?"
HEADING = re.compile(r"#{2,3} (\d+[a-z]?(?:\.\d+)?) +(.*)")


def rows(path, row_id):
    """Yield (chapter, heading, id, level) for each table row with an id."""
    chapter = heading = ""
    pattern = re.compile(rf"\| ({row_id}) \| ([^|]*?) \|")
    for line in path.read_text().splitlines():
        if m := HEADING.match(line):
            chapter, heading = m.group(1).split(".")[0], " ".join(m.groups())
        elif m := pattern.match(line):
            yield chapter, heading, m.group(1), m.group(2)


def test_files():
    for top, patterns in (
        ("src", ["*_test.c", "*_fuzz.c"]),
        ("tests", ["*.c", "*.h", "*.py", "*.sh"]),
    ):
        for pattern in patterns:
            yield from sorted((ROOT / top).rglob(pattern))


def named_in_tests():
    """Map id -> files whose text names it."""
    where = {}
    for path in test_files():
        for line in path.read_text(errors="replace").splitlines():
            ids = re.findall(rf"\b{LONG_ID}\b", line)
            if "hostile" in line:
                ids += re.findall(rf"\b{SHORT_ID}\b", line)
            for i in ids:
                where.setdefault(i, set()).add(path.relative_to(ROOT))
    return where


def notes():
    """The ids of the tables of the notes: excused, not offered."""
    text = (ROOT / "docs/conformance-notes.md").read_text()
    first, *sections = re.split(r"^## (.*)$", text, flags=re.M)
    by_title = dict(zip(sections[::2], sections[1::2]))
    return (
        set(re.findall(rf"^\| ({LONG_ID}|{SHORT_ID}) \|", part, re.M))
        for part in (first, by_title["Not offered"])
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--missing", action="store_true", help="list the rows without a test"
    )
    parser.add_argument(
        "--where", action="store_true", help="list the tests of each row"
    )
    args = parser.parse_args()

    tests = named_in_tests()
    excused, not_offered = notes()
    spec = ROOT / "docs/spec"
    groups, known, failed = {}, set(), []
    for name, row_id in (("conformance", LONG_ID), ("hostile", SHORT_ID)):
        for chapter, heading, i, level in rows(spec / f"{name}.md", row_id):
            scope = name == "conformance" and chapter in IN_SCOPE
            groups.setdefault((name, heading, scope), []).append((i, level))
            known.add(i)
            if scope and level in BINDING and not {i} & (tests.keys() | excused):
                failed.append(i)

    for (name, heading, scope), members in groups.items():
        absent = [i for i, _ in members if i in not_offered and i in tests]
        tested = [i for i, _ in members if i in tests and i not in absent]
        noted = [i for i, _ in members if i in excused and i not in tests]
        missing = [
            f"{i} ({level})" if name == "conformance" else i
            for i, level in members
            if i not in tests and i not in excused
        ]
        print(
            f"{'*' if scope else ' '} {name:11} {heading[:46]:46} "
            f"{len(members):4} rows {len(tested):4} tested "
            f"{len(absent):3} not offered {len(noted):3} excused "
            f"{len(missing):4} missing"
        )
        if args.missing and missing:
            print("      " + ", ".join(missing))
        for i in tested + absent if args.where else []:
            print(f"      {i}: {', '.join(sorted(map(str, tests[i])))}")

    for i in sorted((excused | not_offered) - known):
        print(f"conformance-notes.md names {i}, which is no row")
        failed.append(i)
    if failed:
        print("in scope (*) and without a test: " + ", ".join(failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
