"""Programs of Debian's, unpacked into the cache and run with their own libraries: no root, the host is not changed.

A tool set is the closure of a few packages merged into one folder. Each command gets a wrapper that starts it through the
set's own dynamic loader, so that it runs on hosts whose libc is older. Images made with these tools are the same on every
host, because the tools are.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys

from common import BuildError, cache_dir, locked, say
from debs import Apt, Deb

SETS: dict[str, dict] = {
    "image": {
        "packages": ["cryptsetup-bin", "device-tree-compiler", "dosfstools", "e2fsprogs", "erofs-utils", "kmod", "mtools",
                     "shellcheck", "squashfs-tools", "u-boot-tools", "xz-utils"],
        "commands": ["veritysetup", "dtc", "fdtput", "fdtget", "mkfs.fat", "fsck.fat", "mke2fs", "e2fsck", "debugfs", "dumpe2fs",
                     "mkfs.erofs", "fsck.erofs", "dump.erofs", "kmod", "mcopy", "mmd", "mdir", "mtype", "minfo", "mdel",
                     "mattrib", "mksquashfs", "unsquashfs", "shellcheck", "mkimage", "mkenvimage", "dumpimage", "xz"],
        "aliases": {"depmod": "kmod", "modinfo": "kmod"},
    },
    "qemu": {
        "packages": ["qemu-system-arm", "qemu-utils"],
        "commands": ["qemu-system-aarch64", "qemu-img", "qemu-io"],
        "extra_arguments": {"qemu-system-aarch64": "-L {root}/usr/share/qemu"},
        "environment": {"QEMU_MODULE_DIR": "{root}/usr/lib/{triplet}/qemu"},
    },
    # A virtual machine for the radio tests: a kernel of Debian's with simulated radios.
    "virtual": {
        "packages": ["qemu-system-x86"],
        "commands": ["qemu-system-x86_64"],
        "extra_arguments": {"qemu-system-x86_64": "-L {root}/usr/share/qemu -L {root}/usr/share/seabios"},
        "environment": {"QEMU_MODULE_DIR": "{root}/usr/lib/{triplet}/qemu"},
    },
    # An access point's daemon, as the image has it, a client's, and what people type, in that virtual machine.
    "wireless": {"packages": ["hostapd", "iw", "wpasupplicant"], "commands": ["hostapd", "iw", "wpa_supplicant"]},
    # Measured beside mesh-router by `./build.sh bench router`; unpacked, so that none of them runs as a service here.
    "routers": {"packages": ["babeld", "bird2"], "commands": ["babeld", "bird"]},
    # Other mDNS and DNS-SD implementations, which `./build.sh test namespaces` puts on a link with ours. libc-bin is for
    # getent: nss-mdns has to match the C library that loads it.
    "names": {
        "packages": ["avahi-daemon", "avahi-utils", "dbus-daemon", "libc-bin", "libnss-mdns", "python3-zeroconf", "systemd-resolved"],
        "commands": ["avahi-daemon", "avahi-browse", "avahi-publish", "avahi-resolve", "dbus-daemon", "getent", "python3", "resolvectl",
                     "systemd-resolved"],
        "libraries": ["{root}/usr/lib/{triplet}/systemd"],
        "environment": {"PYTHONHOME": "{root}/usr", "PYTHONDONTWRITEBYTECODE": "1"},
    },
    # An ordinary DNS client, UDP and TCP, for the same tests.
    "dns": {"packages": ["bind9-dnsutils"], "commands": ["dig"]},
    # A home router's DHCP and router advertisements, for the wired ports in the same tests.
    "home": {"packages": ["dnsmasq-base"], "commands": ["dnsmasq"]},
    # Formats a USB stick of the emulated Pi.
    "exfat": {"packages": ["exfatprogs"], "commands": ["mkfs.exfat"]},
    # The measure of a path that files are fetched over, in `./build.sh bench store`.
    "rates": {"packages": ["iperf3"], "commands": ["iperf3"]},
    # dash as sh drops variables whose names it could not use itself, such as cargo's CARGO_BIN_EXE_mesh-store.
    "rust": {"shell": "bash"},
}

TRIPLETS = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}
LOADERS = {"amd64": "ld-linux-x86-64.so.2", "arm64": "ld-linux-aarch64.so.1"}


def host_arch() -> str:
    """Debian's name of this machine's architecture."""
    arch = subprocess.run(["dpkg", "--print-architecture"], check=True, capture_output=True, text=True).stdout.strip()
    if arch not in TRIPLETS:
        raise BuildError(f"building on {arch} is not supported: amd64 or arm64 is needed")
    return arch


def install(name: str, packages: list[str] | None = None, commands: list[str] | None = None) -> pathlib.Path:
    """Make tool set `name`; gives its folder, with `bin/` and `root/`. Quick when it is there already."""
    spec = dict(SETS.get(name, {}))
    packages = packages or spec["packages"]
    commands = commands or spec["commands"]
    folder = cache_dir() / "tools" / name
    # The wrappers hold the folder's path: a cache that was moved is made anew (from the packages in it).
    wanted = hashlib.sha256(repr((packages, commands, spec, FORMAT, str(folder))).encode()).hexdigest()
    mark = folder / ".complete"
    with locked(cache_dir() / "tools" / f"{name}.lock"):
        if mark.exists() and mark.read_text().split()[:1] == [wanted]:
            return folder
        arch = host_arch()
        apt = Apt(arch)
        debs = apt.fetch(packages, closure=True)
        say(f"unpacking {len(debs)} packages for the private tool set '{name}'")
        shutil.rmtree(folder, ignore_errors=True)
        for deb in debs:
            merge(apt.unpack(deb), folder / "root")
        (folder / "bin").mkdir(parents=True, exist_ok=True)
        for command in commands:
            _wrap(folder, arch, command, command, spec)
        for alias, command in spec.get("aliases", {}).items():
            _wrap(folder, arch, alias, command, spec)
        _manifest(folder, debs)
        mark.write_text(wanted)
    return folder


FORMAT = 1   # of the wrappers; a change remakes every set


def merge(source: pathlib.Path, target: pathlib.Path) -> None:
    """Lay one unpacked package over `target` with hard links where possible (sets share the cache's space)."""
    for here, folders, files in os.walk(source):
        relative = pathlib.Path(here).relative_to(source)
        # Debian is merged-/usr; a package that still ships /lib or /bin must land in /usr too.
        if relative.parts[:1] in (("lib",), ("bin",), ("sbin",), ("lib64",)):
            relative = pathlib.Path("usr") / relative
        (target / relative).mkdir(parents=True, exist_ok=True)
        for entry in [*files, *[f for f in folders if os.path.islink(os.path.join(here, f))]]:
            if entry == ".complete":
                continue
            old, new = pathlib.Path(here) / entry, target / relative / entry
            if new.is_symlink() or new.exists():
                new.unlink()
            if old.is_symlink():
                new.symlink_to(os.readlink(old))
            else:
                os.link(old, new)


def _wrap(folder: pathlib.Path, arch: str, name: str, command: str, spec: dict) -> None:
    root = folder / "root"
    program = next((root / place / command for place in ("usr/bin", "usr/sbin", "usr/lib/systemd") if os.path.lexists(root / place / command)), None)
    if program is None:
        raise BuildError(f"no {command} in the packages of tool set {folder.name}")
    fill = {"root": root, "triplet": TRIPLETS[arch]}
    libraries = ":".join([f"{root}/usr/lib/{TRIPLETS[arch]}", f"{root}/usr/lib", *[f.format(**fill) for f in spec.get("libraries", [])]])
    loader = root / "usr/lib" / TRIPLETS[arch] / LOADERS[arch]
    lines = [f"#!/bin/{spec.get('shell', 'sh')}", "# Made by ci/setup/private.py: runs Debian's program with Debian's libraries."]
    for key, value in spec.get("environment", {}).items():
        lines.append(f"{key}='{value.format(**fill)}'; export {key}")
    extra = spec.get("extra_arguments", {}).get(command, "").format(**fill)
    target = os.path.realpath(program)
    lines.append(f"exec '{loader}' --library-path '{libraries}' --argv0 {name} '{target}' {extra} \"$@\"")
    path = folder / "bin" / name
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o755)


def _manifest(folder: pathlib.Path, debs: list[Deb]) -> None:
    lines = [f"{deb.name} {deb.version} {deb.arch} {deb.sha256}" for deb in sorted(debs, key=lambda deb: deb.name)]
    (folder / "packages.txt").write_text("\n".join(lines) + "\n")


def main() -> int:
    """Make the tool sets named on the command line, and print the folder of each one's commands."""
    try:
        for name in sys.argv[1:]:
            print(install(name) / "bin")
    except (BuildError, KeyError, OSError) as error:
        print(f"private: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
