#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Look at all that is compiled with clang-tidy, as .clang-tidy says.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=build-clang-debug

[ -f $dir/build.ninja ] ||
	CC=clang meson setup $dir --werror --buildtype=debug >/dev/null
ninja -C $dir --quiet build.ninja # which files there are may have changed
cd $dir
# What it found goes to standard output; how much it kept to itself, to a file.
sed -n 's/^ *"file": "\(.*\)",\{0,1\}$/\1/p' compile_commands.json | sort -u |
	xargs -n 8 -P "$(nproc)" clang-tidy -p . --quiet 2>tidy.log || {
	grep -v ' generated\.$' tidy.log >&2
	exit 1
}
