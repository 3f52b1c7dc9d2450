#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# A model in bhyve's style compiles without a warning, by each compiler there
# is: bhyve_compile.sh INCLUDE_DIR SOURCE
set -eu

nr=0
for cc in gcc clang; do
	command -v "$cc" >/dev/null || continue
	for std in gnu17 c17; do
		"$cc" -std=$std -Wall -Wextra -Wshadow -Werror -I"$1" \
			-c "$2" -o /dev/null
		nr=$((nr + 1))
	done
done
[ $nr -gt 0 ] || exit 77
