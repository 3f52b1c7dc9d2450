#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Fuzz a target with libFuzzer, from its corpus in tests/corpus.
#
#	scripts/fuzz.sh                     list the targets
#	scripts/fuzz.sh TARGET [SECONDS]    run one (60 s), or `all`, as many at a
#	                                    time as there are processors
#	scripts/fuzz.sh -m TARGET           minimise what was found into tests/corpus
#
# New inputs stay in build-fuzz/corpus/TARGET until they are minimised. A find
# is left in build-fuzz/crash-TARGET-*; the program build-check/tests/TARGET
# repeats it.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=build-fuzz

targets() {
	find src tests -name '*_fuzz.c' -printf '%f\n' | sed 's/\.c$//' | sort
}

build() {
	scripts/install-deps.sh build test
	[ -f $dir/build.ninja ] || CC=clang meson setup $dir -Dfuzz=true \
		-Db_sanitize=address,undefined -Db_lundef=false >$dir.log 2>&1 || {
		cat $dir.log >&2
		exit 1
	}
	rm -f $dir.log
	ninja -C $dir --quiet "${@/#/tests/}"
}

# An input may take ten seconds, and a megabyte in one allocation: no sound one
# comes near either.
fuzz() {
	local target=$1 seconds=$2 saved=
	[ ! -d "tests/corpus/$target" ] || saved=tests/corpus/$target
	mkdir -p "$dir/corpus/$target"
	echo "== $target, $seconds s"
	# shellcheck disable=SC2086 # nothing, or a name
	UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
		"$dir/tests/$target" -max_total_time="$seconds" -timeout=10 \
		-malloc_limit_mb=64 -rss_limit_mb=1024 -max_len=2048 \
		-use_value_profile=0 -entropic=0 -print_final_stats=1 \
		-artifact_prefix="$dir/crash-$target-" \
		"$dir/corpus/$target" $saved >"$dir/$target.log" 2>&1 || {
		tail -n 60 "$dir/$target.log" >&2
		echo "fuzz: $target found something; see $dir/$target.log" >&2
		return 1
	}
	sed -n 's/^stat:://p' "$dir/$target.log" | head -n 3
}

minimise() {
	local target=$1 saved=tests/corpus/$1 new=$dir/corpus/$1.new
	rm -rf "$new"
	mkdir -p "$new" "$saved"
	"$dir/tests/$target" -set_cover_merge=1 -timeout=10 -max_len=2048 "$new" \
		"$saved" "$dir/corpus/$target" >"$dir/$target.log" 2>&1
	# Inputs with names of their own were findings once, and stay.
	find "$saved" -type f -regextype posix-extended \
		-regex '.*/[0-9a-f]{40}' -delete
	find "$new" -type f -exec mv -t "$saved" {} +
	rm -r "$new"
	echo "$target: $(find "$saved" -type f | wc -l) inputs," \
		"$(du -sb "$saved" | cut -f1) bytes"
}

if [ "${1:-}" = -m ]; then
	build "$2"
	minimise "$2"
elif [ $# -eq 0 ] || [ -z "$1" ]; then
	targets
elif [ "$1" = all ]; then
	mapfile -t all < <(targets)
	build "${all[@]}"
	export -f fuzz
	export dir
	printf '%s\n' "${all[@]}" | xargs -P "$(nproc)" -I TARGET \
		bash -c "fuzz TARGET ${2:-60}"
else
	targets | grep -qx "$1" || {
		echo "fuzz: no target $1; there are: $(targets | tr '\n' ' ')" >&2
		exit 2
	}
	build "$1"
	fuzz "$1" "${2:-60}"
fi
