#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# A build without the optional libraries: it compiles and links without them,
# passes the tests of what differs, and says what it lacks.
set -eu
cd "$(dirname "$0")/.."
dir=build-minimal
viodev=$dir/src/viodev/viodev
tests='dgram_test net_be_test pcap_test stream_test tap_test
	disk_test disk_size_test disk_stable_test disk_stall_test disk_wait_test
	block_test block_req_test block_cache_test block_reset_test block_wait_test'

die() {
	echo "check-minimal.sh: $*" >&2
	exit 1
}

# A command that fails with this error, in one line.
fails_with() {
	why=$1
	shift
	said=$("$@" 2>&1 >/dev/null) && die "$*: succeeds"
	[ "$said" = "viodev: $why" ] || die "$*: says '$said'"
}

[ -f $dir/build.ninja ] ||
	meson setup $dir -Dslirp=disabled -Devdev=disabled -During=disabled >/dev/null
# shellcheck disable=SC2046,SC2086 # names without blanks
ninja -C $dir --quiet src/viodev/viodev $(printf 'tests/%s ' $tests)
if readelf -d $viodev | grep -E 'NEEDED.*(slirp|evdev|uring)'; then
	die "is linked with that"
fi
fails_with 'input: this viodev was built without libevdev' \
	$viodev serve input,kind=keyboard
fails_with 'devices: input: this viodev was built without libevdev' \
	$viodev devices input
fails_with 'net: backend=user: this viodev was built without libslirp' \
	$viodev serve net,backend=user
$viodev devices | grep -q '^input .*(built without libevdev)$' ||
	die "devices does not say that input is missing"
# shellcheck disable=SC2086
meson test -C $dir --no-rebuild --print-errorlogs $tests >$dir/check.log ||
	die "unit tests fail: see $dir/check.log"
