#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# All tests. Sources are formatted, and two compilers build debug and release
# without a warning; gcc's debug build is the one with sanitizers. Unit tests,
# fuzz targets and guests run against that one, so that an error in memory fails
# them. Unit tests, the command line and some guests run against the build that
# users get as well, because a sanitizer has its own jail. Ends with `N passed,
# N failed, N skipped`.
#
#	VIODEV_CHECK=unit      only what takes minutes
set -uo pipefail
cd "$(dirname "$0")/.." || exit

# Each device, each backend that a jail could break, each transport.
release_guests=(all.modern all.legacy net.modern net.peers net.user 9p.modern
	scsi.modern console.backends rng.sources lifecycle.device_killed
	stall.frozen vhost_user_all)

passed=0 failed=0 skipped=0

title() {
	printf '\n== %s (after %d s)\n' "$*" "$SECONDS"
}

# Add the figures of the line `N passed, N failed, N skipped` in file $1, written
# by a command that ended with status $2.
count() {
	local p f s
	read -r p f s < <(sed -nE \
		's/^([0-9]+) passed, ([0-9]+) failed, ([0-9]+) skipped$/\1 \2 \3/p' \
		"$1" | tail -n 1) || true
	if [ -z "${s:-}" ] || { [ "$2" -ne 0 ] && [ "$f" -eq 0 ]; }; then
		echo "no result, or none to trust: counts as a failure"
		p=0 f=1 s=0
	fi
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
}

# Run a suite that ends with that line, showing its output as it arrives.
suite() {
	local log
	log=$(mktemp)
	title "$1"
	shift
	"$@" 2>&1 | tee "$log"
	count "$log" "${PIPESTATUS[0]}"
	rm -f "$log"
}

# Suites of a build, several tests at a time: meson_suites DIR JOBS SUITE...
meson_suites() {
	local dir=$1 jobs=$2
	shift 2
	meson test -C "$dir" --no-rebuild --print-errorlogs \
		--num-processes "$jobs" "${@/#/--suite=}" |
		tee "$dir/check.log" | grep -vE '^(ninja|Ok|Expected|Fail|Unexp|Skip|Time|Full|$)'
	awk '/^Ok:/ { p = $2 } /^(Fail|Unexpected Pass|Timeout):/ { f += $NF }
	     /^Skipped:/ { s = $2 }
	     END { printf "%d passed, %d failed, %d skipped\n", p, f, s }' \
		"$dir/check.log"
}

# Guests of a build, two at a time: each mostly keeps one processor busy.
guests() {
	local viodev=$1
	shift
	pytest-3 tests/guest -n 2 --dist loadgroup --viodev "$viodev" --kit "$kit" "$@"
}

# A command that passes or fails as a whole.
one() {
	title "$1"
	shift
	if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
}

# Two threads on one ring: a plain access to a shared field is a race.
threads() {
	[ -f build-tsan/build.ninja ] ||
		meson setup build-tsan -Db_sanitize=thread -Db_lundef=false >/dev/null || return
	ninja -C build-tsan --quiet tests/conformance/thread_test &&
		build-tsan/tests/conformance/thread_test
}

# Build without warnings: each compiler and kind of build sees others.
compiles() {
	local dir=build-$1-$2
	[ -f "$dir/build.ninja" ] ||
		CC=$1 meson setup "$dir" --werror --buildtype="$2" >/dev/null || return
	ninja -C "$dir" --quiet
}

title "build"
scripts/install-deps.sh build test || exit 1
scripts/build.sh build-check -Db_sanitize=address,undefined \
	-Db_lundef=false -Dwerror=true || exit 1

one "format" scripts/format.sh --check
one "gcc, release" compiles gcc release
one "clang, debug" compiles clang debug
one "clang-tidy" scripts/tidy.sh
one "clang, release" compiles clang release
cores=$(nproc)
suite "fuzz targets, with sanitizers" meson_suites build-check "$cores" fuzz
suite "unit tests and command line, with sanitizers" \
	meson_suites build-check $((3 * cores)) unit cli # most of them only wait
title "build, as users get it"
scripts/build.sh build || exit 1
suite "unit tests and command line, as users get them" \
	meson_suites build $((3 * cores)) unit cli
one "conformance: rows of the specification and their tests" \
	python3 scripts/conformance.py
one "driver and device on two threads, under the thread sanitizer" threads
one "a build without the optional libraries" scripts/check-minimal.sh

if [ "${VIODEV_CHECK:-all}" != unit ]; then
	title "guest kit"
	scripts/install-deps.sh kit || exit 1
	kit=$(scripts/kit.sh) || exit 1
	suite "guests, with sanitizers" guests build-check/viodev
	any_of=$(printf ' or %s' "${release_guests[@]}")
	suite "some guests, as users get them" guests build/viodev -k "${any_of# or }"
fi

printf '\n%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" -eq 0 ]
