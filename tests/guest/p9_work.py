# SPDX-License-Identifier: BSD-2-Clause
"""Real work in a directory that a guest has mounted over 9P, and what came of it."""

from vm import PATIENCE

MODULES = ["9p", "9pnet_virtio"]
CACHES = ("none", "mmap", "loose")

# Not to be had over 9P by Linux 6.12, whose client has no fallocate; and io fails for what fsize has left behind.
NO_STRESS = {"fpunch", "fsize", "io"}

# The cached modes of Linux 6.12 write pages back through the descriptor that appends, and count links by themselves.
CACHED_LEAVE_OUT = "append,link"


def mount(guest, tag, directory, cache="none", msize=524288):
    guest.check(f"mkdir -p {directory} && mount -t 9p -o trans=virtio,version=9p2000.L,msize={msize},cache={cache} "
                f"{tag} {directory}")


def fsx(guest, directory, seed=1, operations=300, processes=3, leave_out="", timeout=PATIENCE):
    """The exerciser, which is in the directory: (whether it found nothing, what it printed)."""
    status, out = guest.run(f"cd {directory} && cp fsx /tmp && mkdir work && /tmp/fsx -s {seed} -n {operations} -p {processes} "
                            f"{'-x ' * bool(leave_out)}{leave_out} work && rmdir work", timeout)
    return status == 0, out


def stressors(guest):
    """Those of stress-ng's file system class."""
    text = guest.run("stress-ng --class filesystem?")[1]
    return [name for name in text.split("stressors:")[1].split() if name not in NO_STRESS]


def stress(guest, directory, name, seconds):
    """Whether a stressor verified all it did; None when it cannot run here, and its complaints."""
    status, out = guest.run(f"timeout -s KILL {seconds + 120} stress-ng --{name} 2 --timeout {seconds} "
                            f"--temp-path {directory} --verify --log-brief", seconds + 150)
    if status in (3, 4) or status == 0 and "skipped: 0\n" not in out:
        return None, out
    return status == 0, out


# Commits of a tree of real sources on two branches; a clone, a merge, gc and fsck of it; trees that must be the same.
GIT = """
set -e
export HOME=/root GIT_PAGER=cat GIT_CONFIG_COUNT=3 GIT_CONFIG_KEY_0=user.name GIT_CONFIG_VALUE_0=a \
       GIT_CONFIG_KEY_1=user.email GIT_CONFIG_VALUE_1=a@b GIT_CONFIG_KEY_2=safe.directory GIT_CONFIG_VALUE_2='*'
cd DIRECTORY
git init -q -b main origin
cd origin
cp -r SOURCES src
git add .
git commit -qm sources
git checkout -qb other
for f in $(git ls-files | head -n 20); do echo "/* other */" >>$f; done
git mv src moved
git commit -qam other
git checkout -q main
[ -d src ] && [ ! -e moved ]
echo x >x && git add x && git commit -qm x
git merge -q -m merged other
cd ..
git clone -q origin clone
cd clone
for f in $(git ls-files); do cmp $f ../origin/$f; done
git checkout -q -b old HEAD~1
git checkout -q -
git branch -q -D old
[ -z "$(git status --porcelain)" ]
git repack -qad && git gc -q --prune=now
git fsck --full --strict
cd .. && git -C clone push -q ../origin HEAD:pushed && git -C origin fsck --full
rm -rf origin clone
"""

# A program of several files and a library, built, run, built again after a change, and not when there is none.
COMPILER = r"""
set -e
mkdir DIRECTORY/program && cd DIRECTORY/program
echo '#define STEP 1' >p.h
printf '#include <stdio.h>\n#include "p.h"\nint main(void)\n{\n\tint x = 0;\n' >main.c
for i in $(seq COUNT); do
	printf '#include "p.h"\nint f%d(int x)\n{\n\treturn x + STEP;\n}\n' $i >f$i.c
	echo "int f$i(int x);" >>p.h
	echo "x = f$i(x);" >>main.c
done
printf '\tprintf("%%d\\n", x);\n\treturn 0;\n}\n' >>main.c
printf 'objs := $(patsubst %%.c,%%.o,$(wildcard f*.c))\nprogram: main.o libf.a\n\t$(CC) -o $@ main.o -L. -lf\n' >Makefile
printf 'libf.a: $(objs)\n\trm -f $@\n\tar rcs $@ $(objs)\nmain.o $(objs): p.h\n' >>Makefile
make -s -j2 CFLAGS=-O1
[ "$(./program)" = COUNT ]
make -q CFLAGS=-O1
sleep 1
sed -i 's/STEP 1/STEP 2/' p.h
if make -q CFLAGS=-O1; then exit 1; fi
make -s -j2 CFLAGS=-O1
[ "$(./program)" = $((2 * COUNT)) ]
cd .. && rm -r program
"""


def git(guest, directory, sources="/usr/include/linux/can", timeout=2 * PATIENCE):
    guest.check(GIT.replace("DIRECTORY", directory).replace("SOURCES", sources), timeout)


def compiler(guest, directory, count=4, timeout=2 * PATIENCE):
    guest.check(COMPILER.replace("DIRECTORY", directory).replace("COUNT", str(count)), timeout)


# The upper directory of an overlay: what is written and removed is there, and still is after it was mounted anew. Linux 6.12
# renames over 9P without flags, so what the lower directory has cannot be renamed, nor be replaced by a directory.
OVERLAY = """
set -e
modprobe overlay
mkdir -p /tmp/lower/d /tmp/merged DIRECTORY/upper DIRECTORY/work
echo a >/tmp/lower/a && echo c >/tmp/lower/c && echo b >/tmp/lower/d/b && chmod 4711 /tmp/lower/d/b
merge() { mount -t overlay -o lowerdir=/tmp/lower,upperdir=DIRECTORY/upper,workdir=DIRECTORY/work overlay /tmp/merged; }
merge
cd /tmp/merged
echo x >>a
rm c
chown 12:34 d/b
mkdir e
echo new >e/n
cd /
umount /tmp/merged
merge
cd /tmp/merged
[ "$(echo *)" = "a d e" ]
[ "$(echo $(cat a e/n))" = "a x new" ]
[ $(stat -c %u:%g:%a d/b) = 12:34:711 ]
rm d/b
[ -z "$(ls d)" ]
cd /
umount /tmp/merged
[ -c DIRECTORY/upper/c ]
[ $(cat /tmp/lower/c) = c ]
if dmesg | grep "overlayfs: .*xattr"; then exit 1; fi
rm -r DIRECTORY/upper DIRECTORY/work /tmp/lower
"""


def overlay(guest, directory):
    guest.check(OVERLAY.replace("DIRECTORY", directory))
