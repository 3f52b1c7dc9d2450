#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Try what README.md promises on a Debian that has nothing but apt and make: make
# bare roots of Debian 12 and 13, and run `make demo` and `make check` in each,
# on a clone of this tree. As root.
#
#	scripts/check-bare.sh [12|13]...
#
#	VIODEV_CHECK=unit    make check alone, and of it only what takes seconds
#
# The roots come from the mirror that this machine's apt uses, and the guest kit
# of this machine is shared with them, or made by the first. What they print
# goes to build-bare/N.log as well. Ends with a line for each.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
here=$PWD
cache=${XDG_CACHE_HOME:-$HOME/.cache}/viodev

die() {
	echo "check-bare: $*" >&2
	exit 1
}

# The kit's name for the mirror. It is taken from there as it stands: a change
# of that file would make every kit anew.
eval "$(sed -n '/^find_mirror() {/,/^}/p' scripts/kit.sh)"

suite_of() {
	case $1 in
	12) echo bookworm ;;
	13) echo trixie ;;
	*) die "no Debian $1 here; there are 12 and 13" ;;
	esac
}

make_root() {
	local root=$1 suite=$2
	mmdebstrap --variant=minbase --include=make,ca-certificates \
		--aptopt='Acquire::Retries "3"' \
		--aptopt='APT::Install-Recommends "false"' \
		"$suite" "$root" "deb $mirror $suite main" \
		"deb $mirror $suite-updates main" || return
	# Services of packages that tests need must not start there.
	printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
	chmod 755 "$root/usr/sbin/policy-rc.d"
	cp -L /etc/resolv.conf "$root/etc/resolv.conf"
}

# Run a command in root $1, in namespaces of its own, as on a machine that has
# just been installed: a root to be pivoted into, because the kernel makes no
# user namespace in a chroot. What it starts ends with it.
enter() {
	local root=$1
	shift
	mkdir -p "$cache" "$root/root/.cache/viodev"
	# shellcheck disable=SC2016 # the inner shell expands these
	unshare --mount --pid --ipc --uts --fork --kill-child bash -c '
		set -e
		root=$1 cache=$2
		shift 2
		mount --make-rprivate /
		mount --bind "$root" "$root"
		mount -t proc proc "$root/proc"
		mount -t sysfs sysfs "$root/sys"
		mount --rbind /dev "$root/dev"
		mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
		mount -t tmpfs tmpfs "$root/run"
		mount --bind "$cache" "$root/root/.cache/viodev"
		cd "$root"
		pivot_root . mnt
		umount -l /mnt
		exec "$@"' sh "$root" "$cache" \
		env -i HOME=/root USER=root TERM="${TERM:-dumb}" LC_ALL=C.UTF-8 \
		PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		VIODEV_CHECK="${VIODEV_CHECK:-all}" \
		${http_proxy:+http_proxy="$http_proxy"} \
		sh -c "cd /srv/viodev && $*"
}

step() {
	printf '\n== Debian %s: %s\n' "$1" "$2"
	enter "$root" "$2"
}

check() {
	local n=$1 suite root log=build-bare/$1.log
	suite=$(suite_of "$n") || exit
	root=$work/$n
	{
		printf '== Debian %s: a bare root\n' "$n"
		make_root "$root" "$suite" &&
			git clone -q "file://$here" "$root/srv/viodev" &&
			{ [ "${VIODEV_CHECK:-all}" = unit ] || step "$n" 'make demo'; } &&
			step "$n" 'make check'
	} 2>&1 | tee "$log"
	[ "${PIPESTATUS[0]}" -eq 0 ]
}

[ "$(id -u)" -eq 0 ] || die "needs root, to make roots and to enter them"
scripts/install-deps.sh kit || exit
command -v git >/dev/null || die "git is missing"
mirror=$(find_mirror) ||
	die "cannot tell this machine's Debian mirror from apt; set VIODEV_MIRROR=URL"
mkdir -p build-bare
work=$(mktemp -d -p "${TMPDIR:-/var/tmp}" viodev-bare.XXXXXX)
trap 'rm -rf --one-file-system "$work"' EXIT

[ $# -gt 0 ] || set -- 12 13
results=
status=0
for n in "$@"; do
	if check "$n"; then
		results+="Debian $n: passed"$'\n'
	else
		results+="Debian $n: FAILED, see build-bare/$n.log"$'\n'
		status=1
	fi
	rm -rf --one-file-system "${work:?}/$n"
done
printf '\n%s' "$results"
exit $status
