# SPDX-License-Identifier: BSD-2-Clause
"""Package managers in a directory that a guest has mounted: the test machine's own, in a root of their own there."""

import pathlib
import re
import shutil
import subprocess

FILES = 20

# What dpkg looks for before it begins, and what it runs.
DPKG = ("dpkg", "dpkg-deb", "dpkg-query", "dpkg-split", "tar")

# An installation, a new version whose script fails and then does not, what is broken meanwhile, and a removal.
DPKG_WORK = """
set -e
cd DIRECTORY/root
in_root() { PATH=/usr/bin chroot . "$@"; }
in_root dpkg -i /one.deb >/dev/null
[ $(ls usr/share/pkg | wc -l) = FILES ] && [ -e configured ]
in_root dpkg --verify pkg
echo changed >usr/share/pkg/7
in_root dpkg --verify pkg | grep -q share/pkg/7
echo fail >fail
if in_root dpkg -i /two.deb >/dev/null 2>&1; then exit 1; fi
rm fail
in_root dpkg --configure -a >/dev/null
[ "$(in_root dpkg-query -W -f '${Version} ${Status}' pkg)" = "2 install ok installed" ]
in_root dpkg --verify pkg
in_root dpkg -P pkg >/dev/null
[ ! -e usr/share/pkg ]
"""

# The same of rpm, with its database checked.
RPM_WORK = """
set -e
cd DIRECTORY/root
in_root() { HOME=/ PATH=/usr/bin chroot . "$@"; }
in_root rpm --initdb
in_root rpm -i --nosignature /one.rpm
[ $(ls usr/share/pkg | wc -l) = FILES ]
in_root rpm -V pkg
echo changed >usr/share/pkg/7
if in_root rpm -V pkg >/dev/null; then exit 1; fi
in_root rpm -U --nosignature /two.rpm
[ "$(in_root rpm -q pkg)" = pkg-2-1.noarch ]
in_root rpm -V pkg
in_root rpmdb --verifydb
in_root rpm -e pkg
[ ! -e usr/share/pkg ]
"""

SPEC = """
Name: pkg
Version: VERSION
Release: 1
Summary: test
License: test
BuildArch: noarch
%description
test
%install
mkdir -p %{buildroot}/usr/share/pkg
for i in $(seq FILES); do echo VERSION $i >%{buildroot}/usr/share/pkg/$i; done
%files
/usr/share/pkg
"""


def copy_program(name, root):
    """A program of this machine, and the libraries that it is linked with, to the same places beneath root."""
    program = shutil.which(name, path="/usr/bin:/usr/sbin:/bin:/sbin")
    shutil.copy(program, root / "usr/bin")
    needs = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    for path in re.findall(r"(/\S+) \(0x", needs):
        to = root / path.lstrip("/")
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, to)


def make_root(root, busybox):
    """A root directory with a shell; busybox is the guest's and gets there by itself."""
    for directory in "usr/bin", "usr/share", "dev", "tmp", "var/lib":
        (root / directory).mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    for applet in "sh", "rm", "diff", "ldconfig", "start-stop-daemon":
        (root / "usr/bin" / applet).symlink_to(busybox)
    for name in "passwd", "group":
        (root / "etc").mkdir(exist_ok=True)
        (root / "etc" / name).write_text("root:x:0:0:root:/:/bin/sh\n" if name == "passwd" else "root:x:0:\n")


def make_deb(root, name, version):
    package = root.parent / "deb"
    (package / "DEBIAN").mkdir(parents=True)
    (package / "usr/share/pkg").mkdir(parents=True)
    for i in range(FILES):
        (package / f"usr/share/pkg/{i}").write_text(f"{version} {i}\n")
    (package / "DEBIAN/control").write_text(f"Package: pkg\nVersion: {version}\nArchitecture: all\nMaintainer: a <a@b>\n"
                                            "Description: test\n")
    script = package / "DEBIAN/postinst"
    script.write_text("#!/bin/sh\n[ ! -e /fail ] && echo x >/configured\n")
    script.chmod(0o755)
    sums = "".join(subprocess.run(["md5sum", f"usr/share/pkg/{i}"], cwd=package, capture_output=True, text=True,
                                  check=True).stdout for i in range(FILES))
    (package / "DEBIAN/md5sums").write_text(sums)
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "-b", package, root / name], check=True, capture_output=True)
    shutil.rmtree(package)


def dpkg(root):
    """Puts dpkg and two versions of a package there; the script for the guest, or None without dpkg."""
    if not all(map(shutil.which, DPKG)):
        return None
    for name in DPKG:
        copy_program(name, root)
    for directory in "info", "updates", "triggers":
        (root / "var/lib/dpkg" / directory).mkdir(parents=True)
    for name in "status", "available":
        (root / "var/lib/dpkg" / name).touch()
    (root / "var/log").mkdir()
    make_deb(root, "one.deb", 1)
    make_deb(root, "two.deb", 2)
    return DPKG_WORK.replace("FILES", str(FILES))


def make_rpm(root, name, version):
    top = root.parent / "rpm"
    top.mkdir()
    (top / "pkg.spec").write_text(SPEC.replace("VERSION", str(version)).replace("FILES", str(FILES)))
    subprocess.run(["rpmbuild", "--quiet", "-bb", "--define", f"_topdir {top}", "--define", "_binary_payload w0.gzdio",
                    top / "pkg.spec"], check=True, capture_output=True)
    (built,) = pathlib.Path(top).glob("RPMS/noarch/*.rpm")
    shutil.move(built, root / name)
    shutil.rmtree(top)


def rpm(root):
    """The same of rpm."""
    if not shutil.which("rpmbuild"):
        return None
    for name in "rpm", "rpmdb":
        copy_program(name, root)
    shutil.copytree("/usr/lib/rpm", root / "usr/lib/rpm", symlinks=True, dirs_exist_ok=True)
    (root / "usr/lib/rpm/macros.d/macros.test").write_text("%_dbpath /var/lib/rpm\n")
    make_rpm(root, "one.rpm", 1)
    make_rpm(root, "two.rpm", 2)
    return RPM_WORK.replace("FILES", str(FILES))
