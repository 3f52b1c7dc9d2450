#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# Installs the Debian packages that viodev needs, those that are missing, with apt.
#
#   scripts/install-deps.sh [--check] [GROUP...]     build (default), kit (the guest kit), test,
#                                                   arch (cross compilers)
#
# Lists what it installs first; prints nothing if nothing is missing. Works on Debian 12 and 13. With --check it installs
# nothing and fails when something is missing; where there is no dpkg it cannot tell, and succeeds.
set -eu

die() {
	echo "install-deps.sh: $*" >&2
	exit 1
}

packages_of() {
	case $1 in
	build)
		echo gcc libc6-dev make meson ninja-build pkg-config \
			libcmocka-dev libevdev-dev libjson-c-dev libseccomp-dev libslirp-dev libsqlite3-dev liburing-dev \
			linux-libc-dev
		;;
	kit) echo ca-certificates debian-archive-keyring mmdebstrap python3 ;;
	test) echo clang clang-format-19 clang-tidy "$(clang_runtime)" e2fsprogs fio iperf3 iproute2 libcap2-bin passt \
		python3-pytest python3-pytest-timeout python3-pytest-xdist rpm u-boot-qemu ;;
	arch) echo gcc-i686-linux-gnu gcc-s390x-linux-gnu qemu-user ;;
	*) die "no group $1; there are: build, kit, test, arch" ;;
	esac
}

# The sanitizers' and libFuzzer's library carries the version of the clang that the package clang depends on.
clang_runtime() {
	clang=$(LC_ALL=C apt-cache depends clang 2>/dev/null | sed -n 's/.*Depends: clang-\([0-9][0-9]*\)$/\1/p' | head -n 1)
	if [ -z "$clang" ]; then # no package lists yet: the release's known version
		# shellcheck source=/dev/null
		case $(. /etc/os-release && echo "${VERSION_ID:-}") in
		12) clang=14 ;;
		*) clang=19 ;;
		esac
	fi
	echo "libclang-rt-$clang-dev"
}

missing_of() {
	for package in $(packages_of "$1"); do
		case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) in
		installed) ;;
		*) echo "$package" ;;
		esac
	done
}

check=
if [ "${1:-}" = --check ]; then
	check=1
	shift
	command -v dpkg-query >/dev/null || exit 0
fi
command -v dpkg-query >/dev/null || die "this is for Debian; docs/CONTRIBUTING.md has the packages' names elsewhere"

missing=
for group in "${@:-build}"; do
	packages_of "$group" >/dev/null
	missing="$missing $(missing_of "$group")"
done
# shellcheck disable=SC2086 # names without blanks
missing=$(printf '%s\n' $missing | sort -u | tr '\n' ' ')
missing=${missing% }
[ -n "$missing" ] || exit 0
[ -z "$check" ] || die "missing: $missing (\`make deps\` installs them)"

if [ "$(id -u)" -eq 0 ]; then
	sudo=
elif command -v sudo >/dev/null; then
	sudo=sudo
else
	die "these packages are missing, and installing them needs root or sudo: $missing"
fi

echo "install-deps.sh: installing with apt: $missing" >&2
# Another vendor's broken source in the machine's list need not matter: apt-get install decides.
$sudo apt-get -qq update || echo "install-deps.sh: apt-get update complained; going on" >&2
# shellcheck disable=SC2086
$sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $missing >/dev/null ||
	die "apt-get could not install: $missing"
