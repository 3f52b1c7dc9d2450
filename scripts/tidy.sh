#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Run clang-tidy over all compiled sources, as .clang-tidy configures it.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=build-clang-debug

[ -f $dir/build.ninja ] ||
	CC=clang meson setup $dir --werror --buildtype=debug >/dev/null
ninja -C $dir --quiet build.ninja # which files there are may have changed
cd $dir
# Findings go to standard output; the count of suppressed ones, to a file.
sed -n 's/^ *"file": "\(.*\)",\{0,1\}$/\1/p' compile_commands.json | sort -u |
	xargs -n 8 -P "$(nproc)" clang-tidy -p . --quiet 2>tidy.log || {
	grep -v ' generated\.$' tidy.log >&2
	exit 1
}
