#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Each public header compiles alone, as C and as C++, with the compilers that
# are installed, without a warning. headers.sh INCLUDE_DIR
set -u
include=$1
warnings='-Wall -Wextra -Wpedantic -Wshadow -Werror'
nr_compiled=0 status=0

# compile HEADER LANGUAGE COMPILER...
compile() {
	# shellcheck disable=SC2086
	printf '#include <viodev/%s>\n' "$1" |
		"${@:3}" $warnings -I "$include" -fsyntax-only -x "$2" - &&
		nr_compiled=$((nr_compiled + 1)) && return
	echo "^ <viodev/$1>: ${*:3}"
	status=1
}

for header in "$include"/viodev/*.h; do
	header=${header##*/}
	for cc in gcc clang; do
		command -v "$cc" >/dev/null || continue
		compile "$header" c "$cc" -std=c11
		compile "$header" c "$cc" -std=gnu17 -D_GNU_SOURCE
	done
	for cxx in g++ clang++; do
		command -v "$cxx" >/dev/null || continue
		compile "$header" c++ "$cxx" -std=c++11
		compile "$header" c++ "$cxx" -std=c++20
	done
done
echo "$nr_compiled compilations without a warning"
[ "$nr_compiled" -gt 0 ] && exit "$status"
