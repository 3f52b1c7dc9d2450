#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Build for 32-bit and for big-endian machines, and run the unit tests:
#
#	scripts/check-arch.sh [i386|s390x]...
#
# i386 runs on an x86-64 kernel that has its system calls, and so does the
# sandbox; everything else runs under qemu-user, which lacks some of the kernel.
# Single tests that need more skip themselves (tests/lib/emulated.h).
#
# Debian's cross compilers, with headers and libraries of the other architecture
# unpacked to build-ARCH.root. Ends with `N passed, N failed, N skipped`.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

packages=libc6-dev,linux-libc-dev,libcmocka-dev,libevdev-dev,libjson-c-dev,libseccomp-dev,libslirp-dev,liburing-dev

# Why a test program is left out: most of it relies on what qemu-user lacks.
reason() {
	case $1/$2 in
	*/jail_test | */jail_net_test) echo "no seccomp" ;;
	*/p9_pdu_test) return 1 ;;
	*/p9_*_test | */p9_test | */tree_again_test) echo "no openat2()" ;;
	*/disk_*test | */block_*test) echo "no preadv2()" ;;
	i386/vq_test | i386/vhost_user_stop_test) echo "no room to map 2 GiB" ;;
	*) return 1 ;;
	esac
}

die() {
	echo "check-arch: $*" >&2
	exit 1
}

# As make kit finds it.
eval "$(sed -n '/^find_mirror() {/,/^}/p' scripts/kit.sh)"

# Nothing of the root is run while it is made, so that it needs no rights.
make_root() {
	local arch=$1 root=$2 mirror suite
	mirror=$(find_mirror) || die "cannot tell this machine's Debian mirror; set VIODEV_MIRROR=URL"
	# shellcheck source=/dev/null
	suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
	mkdir -p "$root.new"
	mmdebstrap --mode="$([ "$(id -u)" -eq 0 ] && echo auto || echo chrootless)" \
		--variant=extract --skip=check/qemu --architectures="$arch" --format=tar \
		--aptopt='APT::Install-Recommends "false"' --include=$packages \
		"$suite" - "deb $mirror $suite main" |
		tar -x -C "$root.new" --no-same-owner --exclude='./dev/*' \
			--exclude=./usr/share/doc &&
		{ [ -e "$root.new/lib" ] || ln -s usr/lib "$root.new/lib"; } &&
		mv "$root.new" "$root"
}

# Whether this kernel runs the programs of ROOT.
is_native() {
	"$1"/lib/ld-linux.so.2 --version >/dev/null 2>&1
}

# For meson: compiler CC, libraries of TRIPLET in ROOT. Native programs name
# the root's libraries themselves, so that they need no wrapper.
cross_file() {
	local cc=$1 triplet=$2 root=$3 cpu=$4 family=$5 endian=$6
	local wrapper="'env', 'VIODEV_QEMU_USER=1', 'qemu-$cpu', '-L', '$root'"
	local link="'--sysroot=$root'" libs=$root/lib/$triplet
	if is_native "$root"; then
		wrapper="'env'"
		link+=", '-Wl,--dynamic-linker=$root/lib/ld-linux.so.2'"
		link+=", '-Wl,--disable-new-dtags,-rpath,$libs:$root/usr/lib/$triplet'"
	fi
	cat <<END
[binaries]
c = '$cc-gcc'
ar = '$cc-ar'
strip = '$cc-strip'
pkgconfig = 'pkg-config'
exe_wrapper = [$wrapper]

[properties]
needs_exe_wrapper = true
sys_root = '$root'
pkg_config_libdir = '$root/usr/lib/$triplet/pkgconfig'

[built-in options]
c_args = ['--sysroot=$root']
c_link_args = [$link]

[host_machine]
system = 'linux'
cpu_family = '$family'
cpu = '$cpu'
endian = '$endian'
END
}

build() {
	local arch=$1 root=$PWD/build-$1.root
	[ -d "$root" ] || make_root "$arch" "$root" || return
	case $arch in
	i386) cross_file i686-linux-gnu i386-linux-gnu "$root" i386 x86 little ;;
	s390x) cross_file s390x-linux-gnu s390x-linux-gnu "$root" s390x s390x big ;;
	*) die "no architecture $arch; there are i386 and s390x" ;;
	esac >"$root/meson.cross"
	[ -f "build-$arch/build.ninja" ] ||
		meson setup "build-$arch" --cross-file "$root/meson.cross" \
			--werror >/dev/null || return
	ninja -C "build-$arch" --quiet
}

passed=0 failed=0 skipped=0

run() {
	local arch=$1 name names=() why p f
	for name in $(meson test -C "build-$arch" --list --suite unit 2>/dev/null |
		sed -n 's|.* / ||p'); do
		if ! is_native "$PWD/build-$arch.root" &&
			why=$(reason "$arch" "$name"); then
			echo "skip $name: $why"
			skipped=$((skipped + 1))
		else
			names+=("$name")
		fi
	done
	meson test -C "build-$arch" --no-rebuild --print-errorlogs \
		"${names[@]}" | tee "build-$arch/check.log" |
		grep -vE '^(ninja|Ok|Expected|Fail|Unexp|Skip|Time|Full|$)'
	grep -h '^qemu-user: ' "build-$arch/meson-logs/testlog.txt" | sort
	read -r p f < <(awk '/^Ok:/ { p = $2 } /^(Fail|Timeout):/ { f += $2 }
		END { print p + 0, f + 0 }' "build-$arch/check.log")
	passed=$((passed + p)) failed=$((failed + f))
	[ $((p + f)) -gt 0 ] || failed=$((failed + 1))
}

scripts/install-deps.sh build kit arch || exit
[ $# -gt 0 ] || set -- i386 s390x
for arch in "$@"; do
	printf '\n== %s\n' "$arch"
	if build "$arch"; then run "$arch"; else failed=$((failed + 1)); fi
done
printf '\n%d passed, %d failed, %d skipped\n' $passed $failed $skipped
[ $failed -eq 0 ]
