#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Shows viodev at work: boots Linux in an unmodified QEMU, on devices of all
# seven types that are processes of this machine.
#
#	scripts/demo.sh VIODEV
#
# The guest's job reports on its console; lines before @begin are
# not shown, and at @host it waits until the host has reported its view.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ $# -ne 1 ] || [ ! -x "$1" ]; then
	echo "usage: $0 VIODEV (the program; make build makes it)" >&2
	exit 2
fi
viodev=$(realpath "$1")
by_hand=$1

scripts/install-deps.sh kit
kit=$(scripts/kit.sh)
qemu=$kit/bin/qemu-system-x86_64

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
disk=$work/disk.img
log=$work/console.log
truncate -s 64M "$disk" "$work/lun.img"
mkdir "$work/shared"
echo 'written by the host' >"$work/shared/from-host"
: >"$log"

if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; else bold='' plain=''; fi

title() {
	printf '\n%s%s%s\n' "$bold" "$*" "$plain"
}

# --- the guest's side ---

guest_job() {
	cat <<'END'
show() {
	echo "# $1"
	eval "$1"
	echo
}
set -e
echo @begin
lspci() { command lspci "$@" 2>/dev/null; } # it misses kmod's index
show "lspci -k -d 1af4:"
show "ls -d /sys/bus/virtio/drivers/virtio_*/virtio*"
show "echo \$(cat /sys/block/vda/serial)"
show "mkfs.ext4 -q /dev/vda && mount -t ext4 /dev/vda /mnt && df -h /mnt"
echo 'written by the guest, on a disk that is a process' >/mnt/hello
cd /mnt
show "dd if=/dev/urandom of=file bs=1M count=16 2>/dev/null; sha256sum file | tee sum"
cd /
show "umount /mnt && e2fsck -fn /dev/vda 2>/dev/null | tail -n 1"
echo 3 >/proc/sys/vm/drop_caches
mount -t ext4 /dev/vda /mnt
cd /mnt
show "sha256sum -c sum"
cd /
umount /mnt
show "dd if=/dev/hwrng bs=32 count=1 2>/dev/null | hexdump -C"
show "sg_inq /dev/sda | grep -i -E 'vendor|product|serial'"
show "dd if=/dev/urandom of=/dev/sda bs=1M count=8 oflag=direct 2>&1 | tail -n 1"
ip link set eth0 up
show "udhcpc -i eth0 -nq -s /bin/true 2>&1 | tail -n 1"
mkdir /shared
show "mount -t 9p -o trans=virtio,version=9p2000.L shared /shared && cat /shared/from-host"
echo 'written by the guest' >/shared/from-guest
echo 'a line of the guest' >/dev/hvc0
show "cat /sys/class/input/event*/device/name"
keyboard=$(grep -l viodev-keys /sys/class/input/event*/device/name)
keyboard=${keyboard#/sys/class/input/}
cat "/dev/input/${keyboard%%/*}" >/tmp/events &
until ls -l "/proc/$!/fd" | grep -q /dev/input; do sleep 0.1; done
echo @host
read -r go </dev/ttyS0
until [ "$(wc -c </tmp/events)" -ge 96 ]; do sleep 0.1; done
echo @begin
show "wc -c </tmp/events"
END
}

# An initramfs of one file, to be appended to another: the job (Linux,
# driver-api/early-userspace/buffer-format.rst).
job_archive() {
	local name size
	for name in job.sh 'TRAILER!!!'; do
		size=0
		[ "$name" != job.sh ] || size=$(wc -c <"$work/job.sh")
		printf 070701
		printf %08x 0 0100755 0 0 1 0 "$size" 0 0 0 0 $((${#name} + 1)) 0
		printf '%s\0' "$name"
		zeroes $((-(110 + ${#name} + 1) & 3))
		[ "$size" -eq 0 ] || cat "$work/job.sh"
		zeroes $((-size & 3))
	done
}

zeroes() {
	head -c "$1" /dev/zero
}

guest_job >"$work/job.sh"
job_archive | cat "$kit/initrd.cpio" "$kit/tools.cpio" - >"$work/initrd"

# --- this side ---

# A figure of a device's status: value TEXT KEY.
value() {
	sed -n "s/^ *$2: //p" <<<"$1" | head -n 1
}

# Requests of all its queues: requests TEXT.
requests() {
	awk '$1 == "chains:" { n += $2 } END { print n }' <<<"$1"
}

host_view() {
	local id pid text
	printf '    %-9s %-8s %-9s %-8s %-9s %-8s %s\n' device process 'of user' \
		seccomp Landlock driver requests
	for id in block0 net0 console0 scsi0 rng0 9p0 input0; do
		text=$("$viodev" ctl "$work/$id.ctl" status)
		pid=$(value "$text" pid)
		printf '    %-9s %-8s %-9s %-8s %-9s %-8s %s\n' "$id" "$pid" \
			"$(stat -c %U "/proc/$pid")" "$(value "$text" seccomp)" \
			"$(value "$text" landlock)" "$(value "$text" driver)" \
			"$(requests "$text")"
	done
	printf '\n    # cat hvc0.log shared/from-guest\n'
	sed 's/^/    /' "$work/hvc0.log" "$work/shared/from-guest"
	printf '\n    # viodev ctl input0.ctl inject key KEY_V 1\n'
	"$viodev" ctl "$work/input0.ctl" inject key KEY_V 1 >/dev/null
	"$viodev" ctl "$work/input0.ctl" inject key KEY_V 0 >/dev/null
}

give_up() {
	printf '\nviodev demo: %s; the end of its console:\n' "$*" >&2
	tail -n 30 "$log" >&2
	exit 1
}

title 'viodev run: seven devices, a process each, and QEMU with them attached'
cat <<END

    viodev run block,path=disk.img,serial=demo-0815 net,backend=user \\
        console,console=file:hvc0.log scsi,lun0=lun.img rng \\
        9p,path=shared,tag=shared input,kind=keyboard,name=viodev-keys -- \\
        qemu-system-x86_64 -accel tcg -m 512M -kernel ... -initrd ...
END

coproc guest {
	exec timeout --foreground 180 "$viodev" run --dir="$work" \
		"block,path=$disk,serial=demo-0815" net,backend=user \
		"console,console=file:$work/hvc0.log" \
		"scsi,lun0=$work/lun.img" rng \
		"9p,path=$work/shared,tag=shared" \
		input,kind=keyboard,name=viodev-keys -- \
		"$qemu" -accel tcg -cpu max -m 512M -nodefaults -display none \
		-no-reboot -serial stdio \
		-kernel "$kit/vmlinux" -initrd "$work/initrd" \
		-append "console=ttyS0 quiet panic=-1 tsc=reliable mitigations=off" \
		2>&1
}
# shellcheck disable=SC2154 # coproc assigns it
guest_pid=$guest_PID

job=none shown=
start=$SECONDS
while IFS= read -r -u "${guest[0]}" line; do
	line=${line%$'\r'}
	echo "$line" >>"$log"
	case $line in
	@begin)
		shown=1
		title "The guest, after $((SECONDS - start)) s"
		echo
		;;
	@host)
		shown=
		title 'This machine, meanwhile'
		echo
		host_view
		echo go >&"${guest[1]}"
		;;
	viodev-job=*) job=${line#*=} ;;
	*) [ -z "$shown" ] || printf '    %s\n' "$line" ;;
	esac
done
wait "$guest_pid" || give_up "viodev run ended with status $?"
[ "$job" = 0 ] || give_up "the guest's job ended with status $job"
grep -q 'written by the guest' "$disk" ||
	give_up 'what the guest wrote is not in disk.img'

title 'It worked'
cat <<END

    Linux drove all seven devices with its own virtio drivers; what it wrote is
    on this side: in the images, the directory and the console's log. No device
    is in QEMU: each is a sandboxed process that speaks vfio-user, and a guest
    cannot tell.

    By hand, with a QEMU of 10.1 or newer (one is in ${kit/#"$HOME"/\~}/bin):

        truncate -s 1G disk.img
        $by_hand run block,path=disk.img net,backend=user rng -- \\
            qemu-system-x86_64 -m 1G ...

    or, each on its own:

        $by_hand serve --dir=vio --print-qemu block,path=disk.img rng

END
