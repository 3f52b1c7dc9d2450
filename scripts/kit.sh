#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Makes the guest kit: a QEMU that speaks vfio-user, a kernel, an initramfs and test programs, all private to this
# user and unpacked from Debian packages. Nothing outside the kit's folder is changed; no root rights are needed.
#
#   scripts/kit.sh           make the kit if it is missing or out of date; the last line printed is its path
#   scripts/kit.sh --force   make it afresh
#
# The kit lives in $VIODEV_KIT, or ${XDG_CACHE_HOME:-~/.cache}/viodev/kit:
#   bin/qemu-system-x86_64 bin/qemu-img ...   run from anywhere, the folder may be moved
#   bin/dpdk-testpmd                          likewise
#   vmlinux vmlinuz                           the same kernel; unpacked it boots a second sooner, OVMF needs vmlinuz
#   initrd.cpio tools.cpio devel.cpio         the others are appended to initrd.cpio when a test wants Debian's programs,
#                                             or git, a compiler and stress-ng
#   OVMF_CODE.fd OVMF_VARS.fd
#   uml/linux uml.cpio                        User Mode Linux and its modules, if this machine's mirror has it
#   root/usr/include/blkio.h                  libblkio, with which programs use vhost-user block devices
#   STAMP                                     hash of this file (the kit is made afresh when it changes), then versions
#
# VIODEV_MIRROR=URL overrides the Debian mirror, which otherwise is the one that this machine's apt uses.
set -euo pipefail
export LC_ALL=C

suite=trixie

# From Debian's backports: the first QEMU with vfio-user-pci is 10.1.
qemu_packages="qemu-system-x86 qemu-utils"
oldest_qemu=10.1

kernel_package=linux-image-amd64 # the generic flavour: the cloud one lacks 9p
unpack_packages="kmod zstd" # used while the kit is made

# Front-ends of vhost-user. Older User Mode Linux does not start programs on processors with large register files.
blkio_package=libblkio-dev
uml_suite=forky
uml_package=user-mode-linux
dpdk_packages="dpdk-dev librte-mempool-ring25 librte-net-vhost25 librte-net-virtio25"
guest_packages="busybox-static ethtool evtest e2fsprogs fio iperf3 libiscsi-bin pciutils qemu-guest-agent
	rng-tools5 sg3-utils strace util-linux"
devel_packages="binutils gcc git libc6-dev make stress-ng"

# Programs of those packages that go into tools.cpio.
guest_programs="badblocks blkdiscard blkid blockdev blkzone debugfs dumpe2fs e2fsck ethtool evtest fallocate findmnt fio
	fsck fsck.ext4 fstrim iperf3 iscsi-* lsblk lscpu lspci losetup mke2fs mkfs.ext4 mount qemu-ga resize2fs rngtest
	scsi_* setpci sg_* sgp_dd sgm_dd sg_dd strace tune2fs umount wipefs"
guest_data="usr/share/misc/pci.ids etc/mke2fs.conf"

# What goes into devel.cpio: programs, what gcc runs and links, headers.
devel_programs="ar as gcc git git-upload-pack ld make stress-ng"
devel_files="usr/libexec/gcc/x86_64-linux-gnu/*/cc1 usr/libexec/gcc/x86_64-linux-gnu/*/collect2
	usr/libexec/gcc/x86_64-linux-gnu/*/liblto_plugin.so usr/libexec/gcc/x86_64-linux-gnu/*/lto-wrapper
	usr/lib/x86_64-linux-gnu/*crt?.o usr/lib/x86_64-linux-gnu/libc.so usr/lib/x86_64-linux-gnu/libc_nonshared.a"
devel_folders="usr/include usr/lib/gcc usr/share/git-core"

# DPDK's drivers are plugins: virtio-user is a front-end of vhost-user, net_vhost a back-end.
dpdk_drivers="mempool_ring net_vhost net_virtio"

# Modules of initrd.cpio; those that they need come along, those built into the kernel are no error.
guest_modules="virtio_pci virtio_blk virtio-rng virtio_net virtio_console virtio_scsi virtio_input sd_mod sr_mod sg evdev
	mousedev 9p 9pnet_virtio 9pnet_fd ext4 crc32c_generic isofs vfat nls_cp437 nls_ascii nls_utf8 loop af_packet
	vmw_vsock_virtio_transport 8021q overlay"
uml_modules="virtio_blk virtio_net virtio_console virtio_scsi sd_mod sg"

kit=${VIODEV_KIT:-${XDG_CACHE_HOME:-$HOME/.cache}/viodev/kit}
self=$(readlink -f "$0")
new=

# The user's view goes to descriptor 3; standard error is the log's while the kit is being made.
exec 3>&2
stage=
died=

say() {
	stage=$*
	printf 'kit: %4d s  %s\n' "$SECONDS" "$*" >&3
}

die() {
	died=1
	printf 'kit: %s\n' "$*" >&3
	exit 1
}

# --- the guest's init ---------------------------------------------------------------------------------------------

# Kernel command line:
#   viodev.modules=a,b   modules to load (default: those of the virtio devices that are present; none: no module)
#   viodev.run=PATH      run this, print its status, power off (also when there is a /job.sh)
#   viodev.tty=ttyS1     where the command service listens and where a job's output goes (default ttyS0)
#
# Filesystems and the like load when they are used; load-drivers serves for devices that were plugged in later.
#
# The command service. The harness sends a line TOKEN, the command's lines, and TOKEN again; it gets TOKEN+ on a line,
# what the command prints, and on a line of its own TOKEN=STATUS. A token that is new each time keeps late output of
# an earlier command apart.
write_init() {
	cat <<'END_OF_INIT'
#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
export PATH=/usr/sbin:/usr/bin:/usr/lib/busybox HOME=/root TERM=dumb LC_ALL=C
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mkdir /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
ln -s /proc/mounts /etc/mtab

tty=ttyS0 modules=present run=
[ ! -e /job.sh ] || run=/job.sh
for word in $(cat /proc/cmdline); do
	case $word in
	viodev.tty=*) tty=${word#*=} ;;
	viodev.modules=*) modules=${word#*=} ;;
	viodev.run=*) run=${word#*=} ;;
	esac
done

exec <"/dev/$tty" >"/dev/$tty" 2>&1
stty raw -echo # bytes pass as they are, in both directions

case $modules in
present) load-drivers ;;
none) ;;
*) modprobe -a $(echo "$modules" | tr , ' ') ;;
esac
ip link set lo up

if [ -n "$run" ]; then
	if [ -x "$run" ]; then "$run"; else sh "$run"; fi </dev/null
	printf '\nviodev-job=%s\n' $?
	poweroff -f
fi

newline='
'
serve() {
	printf '\nviodev-ready\n'
	while IFS= read -r token; do
		[ -n "$token" ] || continue
		command=
		while IFS= read -r line && [ "$line" != "$token" ]; do
			command=$command$line$newline
		done
		printf '%s+\n' "$token"
		(eval "$command") </dev/null
		printf '\n%s=%s\n' "$token" $?
	done
}
# Not in the first process, whose read orphans that end would interrupt: it loses what it has of a line then.
serve <"/dev/$tty" &
wait $!
poweroff -f
END_OF_INIT
}

write_load_drivers() {
	cat <<'END_OF_LOAD_DRIVERS'
#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Loads the drivers of the virtio devices that are present, and what turns their units into device files.
want=
for file in /sys/bus/virtio/devices/*/modalias; do
	[ -e "$file" ] || continue
	read -r alias <"$file"
	want="$want $alias"
	case $alias in
	virtio:d00000008*) want="$want sd_mod sr_mod sg" ;;
	virtio:d00000012*) want="$want evdev mousedev" ;;
	esac
done
[ -z "$want" ] || modprobe -ab $want
END_OF_LOAD_DRIVERS
}

# --- pieces -------------------------------------------------------------------------------------------------------

# The Debian mirror of this machine, as apt knows it. Machines whose package lists were deleted (containers) know
# only what the sources say; there the archive is told from other vendors' by having a NAME and a NAME-updates.
find_mirror() {
	local uri name
	if [ -n "${VIODEV_MIRROR:-}" ]; then
		echo "$VIODEV_MIRROR"
		return
	fi
	# shellcheck disable=SC2016 # apt expands it
	uri=$(apt-get indextargets --format '$(REPO_URI)' \
		'Created-By: Packages' 'Origin: Debian' 'Label: Debian' 'Component: main' 2>/dev/null | head -n 1)
	if [ -z "$uri" ]; then
		# shellcheck source=/dev/null
		name=$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")
		uri=$(apt-get update --print-uris 2>/dev/null | sed -n "s|^'\(.*\)/dists/\([^/]*\)/.*|\1 \2|p" |
			awk -v n="$name" '$2 == n { base[$1] = 1 } $2 == n "-updates" && base[$1] { print $1; exit }')
	fi
	[ -n "$uri" ] || return 1
	echo "${uri%/}"
}

# A QEMU of the machine's own serves if it is new enough and has the device.
find_own_qemu() {
	local qemu version
	qemu=$(command -v qemu-system-x86_64) && command -v qemu-img >/dev/null || return 1
	version=$("$qemu" --version | sed -n 's/^QEMU emulator version \([0-9.]*\).*/\1/p')
	[ "$(printf '%s\n' "$oldest_qemu" "$version" | sort -V | head -n 1)" = "$oldest_qemu" ] || return 1
	"$qemu" -machine none -device help 2>/dev/null | grep -q '"vfio-user-pci"' || return 1
	echo "$qemu"
}

# Unpacks the packages and what they depend on into $new/debian. No maintainer script runs. The archive goes through
# a pipe so that nobody needs the right to make device nodes or files of other owners.
fetch_packages() {
	local pin="Package: src:qemu src:edk2 src:seabios\nPin: release n=$suite-backports\nPin-Priority: 990\n"
	mkdir -p "$new/debian"
	local mode=auto
	# Unpacking needs no rights, so that an ordinary user needs neither user namespaces nor subordinate ids.
	[ "$(id -u)" -eq 0 ] || mode=chrootless
	mkdir "$new/tmp" # what a killed mmdebstrap leaves goes away with $new
	TMPDIR=$new/tmp mmdebstrap --mode=$mode --variant=extract --format=tar --include="$(echo "$@" | tr -s ' \t\n' ,)" \
		--aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Retries "3"' \
		--setup-hook="mkdir -p \"\$1\"/etc/apt/preferences.d && printf '$pin' >\"\$1\"/etc/apt/preferences.d/kit" \
		"$suite" - "deb $mirror $suite main" "deb $mirror $suite-backports main" |
		tar -x -C "$new/debian" --no-same-owner --exclude='./dev/*' --exclude=./usr/share/doc \
			--exclude=./usr/share/man --exclude=./usr/share/locale
	local dir
	for dir in bin sbin lib lib64; do
		[ -e "$new/debian/$dir" ] || ln -s "usr/$dir" "$new/debian/$dir"
	done
}

# Testing's package, with the libraries that go with it; a machine whose mirror lacks it goes without. That testing is
# older than it says it may be, on a mirror that was frozen, does not matter here: it is signed all the same.
fetch_uml() {
	local mode=auto
	[ "$(id -u)" -eq 0 ] || mode=chrootless
	mkdir -p "$new/testing"
	TMPDIR=$new/tmp mmdebstrap --mode=$mode --variant=extract --format=tar --include="$uml_package" \
		--aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Check-Valid-Until "false"' \
		"$uml_suite" - "deb $mirror $uml_suite main" |
		tar -x -C "$new/testing" --no-same-owner --wildcards './usr/bin/linux.uml' './usr/lib/uml/*' \
			'./usr/lib/x86_64-linux-gnu/libc.so.6' './usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2'
}

library_path() { echo "$1/usr/lib/x86_64-linux-gnu:$1/usr/lib/x86_64-linux-gnu/ceph"; }

# Runs a program of the unpacked packages with its own libraries: run NAME PROGRAM [ARG...], NAME being its argv[0].
run() {
	local name=$1 program=$new/debian/$2
	shift 2
	"$new/debian/lib64/ld-linux-x86-64.so.2" --library-path "$(library_path "$new/debian")" \
		--argv0 "$name" "$program" "$@"
}

# Copies files of the unpacked packages, and the libraries that they need, to the same place below $1.
copy_with_libraries() {
	local to=$1 debian=$new/debian file real
	shift
	{
		for file in "$@"; do
			echo "$file"
			real=$(readlink -f "$debian/$file")
			echo "${real#"$debian"/}"
			# Scripts and static programs have no list.
			"$debian/lib64/ld-linux-x86-64.so.2" --library-path "$(library_path "$debian")" --list "$debian/$file" \
				2>/dev/null | sed -n "s|.* => $debian/\([^ ]*\) (.*|\1|p" || :
		done
		echo usr/lib64/ld-linux-x86-64.so.2
	} | sed 's|^lib|usr/lib|' | sort -u | copy_files "$to"
}

# Copies the files of the unpacked packages that standard input names to the same place below $1, links followed.
copy_files() {
	local file
	while read -r file; do
		mkdir -p "$1/${file%/*}"
		cp -L --preserve=mode,timestamps "$new/debian/$file" "$1/$file"
	done
}

# The files of the unpacked packages that carry one of these names (patterns allowed), as paths below it.
programs() {
	local name
	for name in $1; do
		(cd "$new/debian" && find usr/bin usr/sbin -name "$name" ! -type d) | grep . || {
			echo "no program $name in the packages" >&2
			exit 1
		}
	done | sort -u
}

# A QEMU program that runs from wherever the kit is.
wrap() {
	local program
	mkdir -p "$new/bin"
	for program in "$@"; do
		if [ -n "$own_qemu" ]; then
			program=$(command -v "$program") && ln -s "$program" "$new/bin/"
			continue
		fi
		cat >"$new/bin/$program" <<'EOW'
#!/bin/sh
# Runs the kit's QEMU with the kit's own loader and libraries.
kit=$(dirname "$(readlink -f "$0")")/..
root=$kit/root lib=$kit/root/usr/lib/x86_64-linux-gnu
EOW
		local data=
		# shellcheck disable=SC2016 # the wrapper expands these
		[ "${program#qemu-system}" = "$program" ] || data=' -L "$root/usr/share/qemu" -L "$root/usr/share/seabios"'
		# shellcheck disable=SC2016
		printf 'export QEMU_MODULE_DIR="$lib/qemu"\nexec "$root/usr/lib64/ld-linux-x86-64.so.2" %s "$root/usr/bin/%s"%s "$@"\n' \
			'--library-path "$lib" --argv0 "$0"' "$program" "$data" >>"$new/bin/$program"
		chmod +x "$new/bin/$program"
	done
}

make_qemu() {
	local list="qemu-system-x86_64 qemu-img qemu-io qemu-nbd qemu-storage-daemon" program
	if [ -z "$own_qemu" ]; then
		local files=() file
		for program in $list; do files+=("usr/bin/$program"); done
		while read -r file; do files+=("$file"); done < <(cd "$new/debian" && ls usr/lib/x86_64-linux-gnu/qemu/*.so)
		copy_with_libraries "$new/root" "${files[@]}"
		mkdir -p "$new/root/usr/share"
		cp -rL "$new/debian/usr/share/seabios" "$new/root/usr/share/"
		(cd "$new/debian" && find -L usr/share/qemu -type f \( -name '*.bin' -o -name '*.rom' -o -path '*/keymaps/*' \)) |
			copy_files "$new/root"
	fi
	# shellcheck disable=SC2086
	wrap $list
	"$new/bin/qemu-system-x86_64" -machine none -device help | grep -q '"vfio-user-pci"'
}

# DPDK's test program, which runs from wherever the kit is as well.
make_dpdk() {
	local drivers=usr/lib/x86_64-linux-gnu/dpdk driver files=()
	for driver in $dpdk_drivers; do
		files+=("$(cd "$new/debian" && ls $drivers/pmds-*/librte_"$driver".so.*.*)")
	done
	copy_with_libraries "$new/root" usr/bin/dpdk-testpmd "${files[@]}"
	cat >"$new/bin/dpdk-testpmd" <<'EOW'
#!/bin/sh
# Runs the kit's DPDK with the kit's own loader, libraries and drivers.
kit=$(dirname "$(readlink -f "$0")")/..
root=$kit/root lib=$kit/root/usr/lib/x86_64-linux-gnu
# Loaded in advance, drivers may be in a folder that DPDK would not trust.
exec "$root/usr/lib64/ld-linux-x86-64.so.2" --library-path "$lib" --preload "$(echo "$lib"/dpdk/pmds-*/*)" \
	--argv0 "$0" "$root/usr/bin/dpdk-testpmd" "$@"
EOW
	chmod +x "$new/bin/dpdk-testpmd"
	"$new/bin/dpdk-testpmd" --help >/dev/null
}

busybox() { "$new/debian/usr/bin/busybox" "$@"; }

# Packs folder $1 into the initramfs archive $2; not compressed, as unpacking costs an emulated guest more than reading.
pack() { (cd "$1" && find . -mindepth 1 | sort | busybox cpio -o -H newc -R 0:0 >"$2" 2>/dev/null); }

# The kernel proper out of vmlinuz: the boot protocol's header says how many 512-byte sectors of set-up code come first
# (0x1f1) and where in the rest the compressed kernel lies (0x248, 0x24c; its last four bytes are the unpacked size).
unpack_kernel() {
	local sectors offset length
	sectors=$(od -An -tu1 -j $((0x1f1)) -N 1 "$new/vmlinuz")
	offset=$(od -An -tu4 -j $((0x248)) -N 4 "$new/vmlinuz")
	length=$(od -An -tu4 -j $((0x24c)) -N 4 "$new/vmlinuz")
	dd if="$new/vmlinuz" bs=1M iflag=skip_bytes,count_bytes status=none \
		skip=$(((sectors + 1) * 512 + offset)) count=$((length - 4)) |
		run zstd usr/bin/zstd -dq >"$new/vmlinux"
}

make_initrd() {
	local root=$new/initrd module file applet
	mkdir -p "$root"/{proc,sys,dev,tmp,run,root,mnt,etc,usr/{bin,sbin,lib/busybox,lib64}}
	for file in bin sbin lib lib64; do ln -s "usr/$file" "$root/$file"; done
	cp "$new/debian/usr/bin/busybox" "$root/usr/bin/busybox"
	# The applets have a folder of their own, last in the path: Debian's programs win where both are.
	busybox --list | while read -r applet; do ln -s ../../bin/busybox "$root/usr/lib/busybox/$applet"; done
	ln -s busybox "$root/usr/bin/sh"
	ln -s ../bin/busybox "$root/usr/sbin/modprobe" # the kernel calls it by this name
	echo root:x:0:0:root:/root:/bin/sh >"$root/etc/passwd"
	echo root:x:0: >"$root/etc/group"
	write_init >"$root/init"
	write_load_drivers >"$root/usr/sbin/load-drivers"
	chmod 755 "$root/init" "$root/usr/sbin/load-drivers"

	local modules="lib/modules/$kernel"
	run depmod usr/bin/kmod -b "$new/debian" "$kernel"
	for module in $guest_modules; do
		run modprobe usr/bin/kmod -d "$new/debian" -S "$kernel" --show-depends "$module"
	done | sed -n "s|^insmod $new/debian/\([^ ]*\).*|\1|p" | sed 's|^usr/||' | sort -u | while read -r file; do
		mkdir -p "$root/${file%/*}"
		busybox xzcat "$new/debian/$file" >"$root/${file%.xz}"
	done
	cp "$new/debian/$modules"/modules.{builtin,builtin.modinfo,order} "$root/$modules/"
	run depmod usr/bin/kmod -b "$root" "$kernel"
	rm -f "$root/$modules"/*.bin # an index that busybox does not read
	pack "$root" "$new/initrd.cpio"
}

make_tools() {
	local list
	list=$(programs "$guest_programs")
	# shellcheck disable=SC2086
	copy_with_libraries "$new/tools" $list $guest_data
	pack "$new/tools" "$new/tools.cpio"
}

make_blkio() {
	copy_with_libraries "$new/root" usr/lib/x86_64-linux-gnu/libblkio.so.1 usr/lib/x86_64-linux-gnu/libblkio.so
	echo usr/include/blkio.h | copy_files "$new/root"
}

# It executes itself anew, so that it cannot be started by a loader of our choice: it gets the loader's name, as long as
# the one before, in the folder that it is started in.
make_uml() {
	local from=$new/testing/usr to=$new/uml modules=usr/lib/modules kernel module file
	mkdir -p "$to/modules"
	sed 's|/lib64/ld-linux-x86-64.so.2|.//////ld-linux-x86-64.so.2|' "$from/bin/linux.uml" >"$to/linux"
	chmod 755 "$to/linux"
	cp -L "$from"/lib/x86_64-linux-gnu/{libc.so.6,ld-linux-x86-64.so.2} "$to/"
	kernel=$(cd "$from/lib/uml/modules" && echo *)
	mkdir -p "$new/testing/$modules" "$to/modules/$modules/$kernel"
	mv "$from/lib/uml/modules/$kernel" "$new/testing/$modules/"
	for module in $uml_modules; do
		run modprobe usr/bin/kmod -d "$new/testing/usr" -S "$kernel" --show-depends "$module"
	done | sed -n "s|^insmod $new/testing/\([^ ]*\).*|\1|p" | sort -u | while read -r file; do
		mkdir -p "$to/modules/${file%/*}"
		cp "$new/testing/$file" "$to/modules/$file"
	done
	cp "$new/testing/$modules/$kernel"/modules.{builtin,builtin.modinfo,order} "$to/modules/$modules/$kernel/"
	run depmod usr/bin/kmod -b "$to/modules/usr" "$kernel"
	rm -f "$to/modules/$modules/$kernel"/*.bin
	pack "$to/modules" "$new/uml.cpio"
	rm -rf "$to/modules"
}

make_devel() {
	local list
	list=$(programs "$devel_programs")
	# shellcheck disable=SC2046,SC2086 # lists and patterns
	copy_with_libraries "$new/devel" $list $(cd "$new/debian" && ls $devel_files)
	# shellcheck disable=SC2086
	(cd "$new/debian" && find -L $devel_folders -type f ! -name 'lib*san*' ! -path '*-linux-*/asm/*' \
		-o -type f -path '*/x86_64-linux-gnu/asm/*') | copy_files "$new/devel"
	ln -s gcc "$new/devel/usr/bin/cc"
	pack "$new/devel" "$new/devel.cpio"
}

# --- main ---------------------------------------------------------------------------------------------------------

make_kit() {
	say "making the guest kit in $kit (log: $log)"
	mirror=$(find_mirror) ||
		die "cannot tell this machine's Debian mirror from apt; set VIODEV_MIRROR=URL and run $0 again"
	own_qemu=$(find_own_qemu) || own_qemu=
	local wanted="$guest_packages $devel_packages $unpack_packages $blkio_package $dpdk_packages $kernel_package ovmf"
	local about="430 MB"
	if [ -z "$own_qemu" ]; then wanted="$wanted $qemu_packages"; else about="405 MB"; fi

	say "downloading and unpacking Debian $suite packages, about $about, from $mirror"
	# shellcheck disable=SC2086
	fetch_packages $wanted
	kernel=$(cd "$new/debian/usr/lib/modules" && echo *)
	cp "$new/debian/boot/vmlinuz-$kernel" "$new/vmlinuz"
	unpack_kernel
	cp "$new/debian/usr/share/OVMF/OVMF_CODE_4M.fd" "$new/OVMF_CODE.fd"
	cp "$new/debian/usr/share/OVMF/OVMF_VARS_4M.fd" "$new/OVMF_VARS.fd"

	if [ -n "$own_qemu" ]; then say "QEMU: this machine's $own_qemu"; else say "QEMU: from the packages"; fi
	make_qemu
	say "DPDK: testpmd"
	make_dpdk
	say "initrd.cpio: Linux $kernel, busybox, modules"
	make_initrd
	say "tools.cpio: the guest's test programs"
	make_tools
	say "devel.cpio: git, a compiler, stress-ng"
	make_devel
	say "libblkio"
	make_blkio
	if fetch_uml; then
		say "User Mode Linux"
		make_uml
	else
		say "User Mode Linux cannot be had from $mirror: tests with it will be skipped"
	fi
	rm -rf "$new/debian" "$new/testing" "$new/initrd" "$new/tools" "$new/devel" "$new/tmp"
	{
		stamp
		echo "Linux $kernel"
		"$new/bin/qemu-system-x86_64" --version | head -n 1
	} >"$new/STAMP"
}

stamp() { sha256sum <"$self" | cut -d' ' -f1; }

fresh() { [ -x "$kit/bin/qemu-system-x86_64" ] && [ "$(stamp)" = "$(head -n 1 "$kit/STAMP" 2>/dev/null)" ]; }

force=
case "${1:-}" in
'') ;;
--force) force=1 ;;
*) die "usage: $0 [--force]" ;;
esac

if [ -z "$force" ] && fresh; then
	echo "$kit"
	exit
fi

mkdir -p "$(dirname "$kit")"
kit=$(readlink -f "$(dirname "$kit")")/$(basename "$kit")
exec 9>"$kit.lock"
if ! flock -n 9; then
	say "another run is making the kit; waiting for it"
	flock 9
	# That run has made what --force asks for.
	force=
fi
if [ -z "$force" ] && fresh; then
	echo "$kit"
	exit
fi

for needed in mmdebstrap apt-get tar; do
	command -v $needed >/dev/null || die "$needed is missing; run $(dirname "$0")/install-deps.sh kit"
done

log=$kit.log
new=$kit.new
finish() {
	local status=$?
	rm -rf "$new"
	[ $status -eq 0 ] || [ -n "$died" ] || die "failed while: $stage; see the end of $log, then run $0 again"
}
trap finish EXIT
trap 'exit 1' INT TERM HUP
rm -rf "$new" # of a run that was killed
mkdir "$new"
# The lock is not for children: one that lives on would hold it.
make_kit >"$log" 2>&1 9>&-

rm -rf "$kit.old"
[ ! -e "$kit" ] || mv "$kit" "$kit.old"
mv "$new" "$kit"
rm -rf "$kit.old"
say "ready, $(du -sh "$kit" | cut -f1)"
echo "$kit"
