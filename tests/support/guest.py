"""
A machine of its own with Linux and its initiator, for tests: Debian's kernel and open-iscsi under qemu.

C{python -m tests.support.guest DIRECTORY} fetches the packages and unpacks them there; nothing is installed.
"""

from __future__ import annotations

import gzip
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

QEMU = "qemu-system-x86_64"
KERNEL = "linux-image-cloud-amd64"
PACKAGES = (
    "busybox-static", "e2fsprogs", "kmod", "libext2fs2", "libisns0", "libkmod2", "libmount1",
    "libopeniscsiusr", "open-iscsi", "util-linux",
)  # fmt: skip
PROGRAMS = (
    "blkdiscard", "iscsiadm", "iscsid", "mke2fs", "sg_persist", "sg_sanitize", "sg_start", "sg_turs",
    "sg_xcopy",
)  # fmt: skip
MODULES = (
    "crc32c-intel", "ext4", "iscsi_tcp", "isofs", "libcrc32c", "sd_mod", "sg", "sr_mod", "virtio_net",
    "virtio_pci",
)  # fmt: skip
HOST = "10.0.2.2"
"""What the guest calls the machine that runs it."""
LIBRARIES = "usr/lib/x86_64-linux-gnu"

INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/sbin:/bin LD_LIBRARY_PATH=/%s
mount -t proc p /proc
mount -t sysfs s /sys
mount -t devtmpfs d /dev
mkdir -p /run/lock/iscsi
for name in %s; do modprobe $name; done 2>/dev/null
echo 1 >/proc/sys/kernel/printk
ip link set lo up
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0
ip route add default via %s
iscsid
until iscsiadm -m session 2>&1 | grep -q 'No active'; do sleep 0.1; done
run() { echo "+++ $*"; "$@" 2>&1; echo "--- $?"; }
. /script
poweroff -f
"""


def fetch(folder: Path) -> None:
    """Fetch and unpack the packages."""
    folder.mkdir(parents=True, exist_ok=True)
    told = subprocess.run(["apt-cache", "depends", KERNEL], check=True, capture_output=True, text=True).stdout
    (kernel,) = re.findall(r"Depends: (linux-image-\S+)", told)[:1]
    subprocess.run(["apt-get", "-q", "download", kernel, *PACKAGES], check=True, cwd=folder)
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg", "-x", str(package), str(folder / "root")], check=True)
        package.unlink()


class Guest:
    """
    The machine.

    @ivar root: where the packages were unpacked.
    """

    def __init__(self, folder: Path, work: Path) -> None:
        """@param work: a directory for what it is started from."""
        self.root = folder / "root"
        (self.kernel,) = (self.root / "boot").glob("vmlinuz-*")
        self.version = self.kernel.name.partition("-")[2]
        self._tree = work / "tree"
        self._work = work
        self._libraries = f"{self.root / LIBRARIES}:{self.root / 'lib' / 'x86_64-linux-gnu'}"

    def command(self, script: str) -> list[str]:
        """How to start it so that it runs a script, tells of it on its serial line, and ends."""
        self._fill(script)
        archive = self._work / "initrd"
        archive.write_bytes(gzip.compress(b"".join(archived(self._tree)), 1))
        return [
            QEMU, "-machine", "pc,accel=tcg", "-cpu", "max", "-m", "512", "-display", "none", "-nodefaults",
            "-serial", "stdio", "-kernel", str(self.kernel), "-initrd", str(archive), "-append",
            "console=ttyS0 quiet panic=-1", "-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n",
            "-no-reboot",
        ]  # fmt: skip

    def _fill(self, script: str) -> None:
        tree = self._tree
        for name in (
            "bin",
            "sbin",
            "proc",
            "sys",
            "dev",
            "run",
            "tmp",
            "mnt",
            "etc/iscsi",
            "lib64",
            LIBRARIES,
        ):
            (tree / name).mkdir(parents=True)
        shutil.copy(self.root / "bin" / "busybox", tree / "bin")
        shutil.copy("/lib64/ld-linux-x86-64.so.2", tree / "lib64")
        shutil.copy(self.root / "bin" / "kmod", tree / "sbin" / "modprobe")
        self._library(tree / "sbin" / "modprobe")
        for name in PROGRAMS:
            shutil.copy(self._found(name), tree / "sbin" / name)
            self._library(tree / "sbin" / name)
        self._modules()
        shutil.copy(self.root / "etc" / "iscsi" / "iscsid.conf", tree / "etc" / "iscsi")
        (tree / "etc" / "iscsi" / "initiatorname.iscsi").write_text(
            "InitiatorName=iqn.2001-04.com.example:linux\n"
        )
        (tree / "etc" / "passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
        (tree / "script").write_text(script)
        (tree / "init").write_text(INIT % (LIBRARIES, " ".join(MODULES), HOST))
        (tree / "init").chmod(0o755)

    def _found(self, name: str) -> Path:
        for folder in ("sbin", "usr/sbin", "bin", "usr/bin"):
            if (path := self.root / folder / name).is_file():
                return path
        path = shutil.which(name)
        assert path is not None, f"{name} is neither in the packages nor installed"
        return Path(path)

    def _library(self, program: Path) -> None:
        told = subprocess.run(
            ["ldd", str(program)], env={"LD_LIBRARY_PATH": self._libraries, "PATH": "/usr/bin:/bin"},
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        for path in re.findall(r"=> (/\S+)", told):
            shutil.copy(path, self._tree / LIBRARIES)

    def _modules(self) -> None:
        """The modules, those that they need, and the list of what needs what."""
        shutil.copy(self.root / "bin" / "kmod", self._work / "modprobe")
        shutil.copy(self.root / "bin" / "kmod", self._work / "depmod")
        environment = {"LD_LIBRARY_PATH": self._libraries, "PATH": "/usr/bin:/bin"}
        subprocess.run([self._work / "depmod", "-b", self.root, self.version], env=environment, check=True)
        folder = Path("lib") / "modules" / self.version
        for name in MODULES:
            told = subprocess.run(
                [self._work / "modprobe", "-d", self.root, "-S", self.version, "--show-depends", name],
                env=environment, check=False, capture_output=True, text=True,
            ).stdout  # fmt: skip
            for path in re.findall(r"^insmod (\S+)", told, re.MULTILINE):
                place = self._tree / Path(path).relative_to(self.root)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, place)
        for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
            shutil.copy(self.root / folder / name, self._tree / folder)
        subprocess.run([self._work / "depmod", "-b", self._tree, self.version], env=environment, check=True)


def archived(tree: Path) -> Iterator[bytes]:
    """A directory as the kernel wants it for its first file system (cpio, 'newc')."""
    for number, path in enumerate(sorted(tree.rglob("*")), 1):
        status = path.stat()
        content = path.read_bytes() if path.is_file() else b""
        mode = (stat.S_IFREG if path.is_file() else stat.S_IFDIR) | stat.S_IMODE(status.st_mode)
        yield _entry(str(path.relative_to(tree)), number, mode, content)
    yield _entry("TRAILER!!!", 0, 0, b"")


def _entry(name: str, number: int, mode: int, content: bytes) -> bytes:
    text = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(text), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + text
    return head.ljust(len(head) + 3 & ~3, b"\0") + content.ljust(len(content) + 3 & ~3, b"\0")


if __name__ == "__main__":
    fetch(Path(sys.argv[1]))
