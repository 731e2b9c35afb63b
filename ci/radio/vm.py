#!/usr/bin/env python3
"""A virtual machine with simulated Wi-Fi radios, for the tests of radios: Debian's kernel with mac80211_hwsim, and an
initramfs of busybox, that module with what it needs, and this machine's own release builds.

usage: vm.py [--radios N] [--seconds N] [--steady] [--keep] [--bin-dir DIR] -- PROGRAM [ARGUMENT...]

PROGRAM is one of crates/target/release, or of DIR, all of whose programs are in the machine then; it runs as root and
prints to standard output here, and its exit code is this program's. The kernel's console is in
build/test-logs/radio-console.log; its tail is shown after a failure.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import select
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

TREE = pathlib.Path(__file__).resolve().parents[2]
for folder in ("setup", "image", "provider"):
    sys.path.insert(0, str(TREE / "ci" / folder))

import cpio  # noqa: E402
import elf  # noqa: E402
import kmods  # noqa: E402
import private  # noqa: E402
from common import BuildError  # noqa: E402
from debs import Apt  # noqa: E402

PROGRAMS = ["mesh-lab", "mesh-mdns", "mesh-radio", "mesh-router", "mesh-store", "meshctl"]
# Debian's, as the image has them: the access point's daemon, the secured mesh's (and a client's), people's.
TOOLS = ["hostapd", "iw", "wpa_supplicant"]
# Loaded in this order, after what they need: cables, radios, their ciphers, address translation, the packet filter.
MODULES = ["veth", "mac80211_hwsim", "ccm", "cmac", "gcm", "crc32c_generic", "nf_tables", "nft_chain_nat", "nft_nat", "nft_masq", "nft_ct",
           "nft_fib_inet"]
CONSOLE = TREE / "build/test-logs/radio-console.log"
END = re.compile(r"^vm: exit (\d+)$")

INIT = """#!/bin/busybox sh
# Console: ttyS0. What the tests print: ttyS1.
/bin/busybox --install -s /bin
mount -t devtmpfs none /dev
mount -t proc none /proc
mount -t sysfs none /sys
mount -t debugfs none /sys/kernel/debug
mount -t tmpfs none /tmp
mkdir -p /run /root
ip link set lo up
while read -r module arguments; do insmod "$module" $arguments || echo "vm: no $module"; done </modules
cd /root
P2PMESH_LAB_INSIDE=1 HOME=/root PATH=/bin {command} >/dev/ttyS1 2>&1 </dev/null
echo "vm: exit $?" >/dev/ttyS1
echo o >/proc/sysrq-trigger
sleep 10
"""


def target_folder() -> pathlib.Path:
    """Where the release builds are."""
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR", TREE / "crates/target")) / "release"


def install_program(path: pathlib.Path, root: pathlib.Path) -> None:
    """Copies a program and the shared libraries it needs to where its loader looks for them."""
    shutil.copy(path, root / "bin" / path.name)
    listed = subprocess.run(["ldd", str(path)], check=False, capture_output=True, text=True).stdout
    for library in re.findall(r"(?:=> )?(/\S+) \(0x", listed):
        copy = root / library.lstrip("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not copy.exists():
            shutil.copy(os.path.realpath(library), copy)
    names, _ = elf.needed(path) or ([], None)
    missing = [name for name in names if not list(root.rglob(name))]
    if missing:
        raise BuildError(f"{path.name} needs {', '.join(missing)}, which this machine does not have")


def install_tool(name: str, tools: pathlib.Path, root: pathlib.Path) -> None:
    """Copies a program of the private tool set, with its own libraries and loader: they are not this machine's."""
    places = [tools / "root/usr/lib" / private.TRIPLETS["amd64"], tools / "root/usr/lib"]
    folder = root / "tools"
    folder.mkdir(exist_ok=True)
    wanted = [private.LOADERS["amd64"], *(elf.needed(tools / "root/usr/sbin" / name) or ([], None))[0]]
    while wanted:
        library = wanted.pop()
        if (folder / library).exists():
            continue
        path = next((place / library for place in places if (place / library).exists()), None)
        if path is None:
            raise BuildError(f"{name} needs {library}, which is in none of the packages of the tool set {tools.name}")
        shutil.copy(path.resolve(), folder / library)
        wanted += (elf.needed(path.resolve()) or ([], None))[0]
    shutil.copy(tools / "root/usr/sbin" / name, folder / name)
    loader = f"/tools/{private.LOADERS['amd64']}"
    (root / "bin" / name).write_text(f'#!/bin/sh\nexec {loader} --library-path /tools --argv0 {name} /tools/{name} "$@"\n')
    (root / "bin" / name).chmod(0o755)


def release_builds() -> list[pathlib.Path]:
    """This machine's own builds of what the tests need."""
    programs = [target_folder() / name for name in PROGRAMS]
    for program in programs:
        if not program.exists():
            raise BuildError(f"{program} is missing; build it with: cargo build --manifest-path crates/Cargo.toml --release --bins")
    return programs


def initramfs(work: pathlib.Path, folders: dict[str, pathlib.Path], programs: list[pathlib.Path], radios: int, command: list[str]) -> pathlib.Path:
    """The file system of the virtual machine, packed. `folders`: Debian's packages, unpacked."""
    kernel = next(folder for name, folder in folders.items() if name.startswith("linux-image-"))
    busybox, regdb = folders["busybox-static"], folders["wireless-regdb"]
    root = work / "root"
    for folder in ("bin", "proc", "sys", "tmp", "lib64", "dev"):
        (root / folder).mkdir(parents=True)
    shutil.copy(busybox / "usr/bin/busybox", root / "bin/busybox")
    for program in programs:
        install_program(program, root)
    tools = private.install("wireless")
    for name in TOOLS:
        install_tool(name, tools, root)
    # Where which country lets radios send; signed, and the kernel knows the key.
    (root / "lib/firmware").mkdir(parents=True)
    for name in ("regulatory.db", "regulatory.db.p7s"):
        shutil.copy(next(regdb.rglob(f"{name}-upstream")), root / "lib/firmware" / name)
    tree = kmods.ModuleTree(kernel)
    names = tree.closure([(name, 0) for name in MODULES], "vm.py")
    base = tree.install(names, root)
    lines = []
    for name in names:
        path = next(base.rglob(name.replace("_", "[-_]") + ".ko"))
        lines.append(f"/{path.relative_to(root)}" + (f" radios={radios}" if name == "mac80211_hwsim" else ""))
    (root / "modules").write_text("\n".join(lines) + "\n")
    (root / "init").write_text(INIT.format(command=shlex.join([f"/bin/{command[0]}", *command[1:]])))
    (root / "init").chmod(0o755)
    packed = work / "initramfs"
    packed.write_bytes(cpio.archive(root, 0))
    return packed


def qemu() -> str:
    """The emulator: the host's own, or Debian's in the cache."""
    return shutil.which("qemu-system-x86_64") or str(private.install("virtual") / "bin/qemu-system-x86_64")


def watch(process: subprocess.Popen, seconds: int) -> tuple[int | None, str]:
    """Shows what the tests print until they end: their exit code, or None and why there is none."""
    deadline, pending, code = time.monotonic() + seconds, b"", None
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            return None, f"not done within {seconds} s"
        ready, _, _ = select.select([process.stdout], [], [], left)
        if not ready:
            continue
        piece = os.read(process.stdout.fileno(), 65536)
        if not piece:
            return code, "the virtual machine ended before its tests"
        *lines, pending = (pending + piece).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace").rstrip("\r")
            if match := END.match(text):
                code = int(match[1])
            else:
                print(text, flush=True)


def run(radios: int, seconds: int, command: list[str], steady: bool = False, keep: bool = False, bin_dir: pathlib.Path | None = None) -> int:
    """Boots the machine, runs `command` in it, and gives its exit code."""
    if private.host_arch() != "amd64":
        print("SKIPPED: the tests of radios: the virtual machine runs this machine's programs, and they have to be for x86-64")
        return 0
    apt = Apt("amd64")
    names = apt_packages(apt)
    folders = {deb.name: apt.unpack(deb) for deb in apt.fetch(names)}
    kernel = next(folder for name, folder in folders.items() if name.startswith("linux-image-"))
    CONSOLE.parent.mkdir(parents=True, exist_ok=True)
    CONSOLE.write_bytes(b"")
    work = pathlib.Path(tempfile.mkdtemp(prefix="p2pmesh-vm-"))
    try:
        programs = sorted(bin_dir.iterdir()) if bin_dir else release_builds()
        packed = initramfs(work, folders, programs, radios, command)
        line = [qemu(), "-M", "q35", "-cpu", "max", "-accel", "tcg,thread=single", "-smp", "1", "-m", "512",
                "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
                "-kernel", str(next((kernel / "boot").glob("vmlinuz-*"))), "-initrd", str(packed),
                "-append", "console=ttyS0 panic=-1 quiet random.trust_cpu=on mitigations=off tsc=reliable",
                "-serial", f"file:{CONSOLE}", "-serial", "stdio"]
        if steady:
            line += ["-icount", "shift=1,sleep=off"]
        start = time.monotonic()
        process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            code, why = watch(process, seconds)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        print(f"virtual machine: {time.monotonic() - start:.1f} s from power-on to power-off", flush=True)
        if code != 0:
            tail = CONSOLE.read_text(errors="replace").splitlines()[-40:]
            print(f"--- {why if code is None else f'exit code {code}'}; the console's tail ({CONSOLE.relative_to(TREE)}):")
            print("\n".join("    " + text for text in tail), flush=True)
        return 1 if code is None else code
    finally:
        if keep:
            print(f"kept: {work}")
        else:
            shutil.rmtree(work, ignore_errors=True)


def apt_packages(apt: Apt) -> list[str]:
    """The kernel behind its meta package, busybox, and the rules of countries."""
    apt.update()
    return [*apt.follow("linux-image-amd64", r"linux-image-[0-9].*"), "busybox-static", "wireless-regdb"]


def main() -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--radios", type=int, default=3, help="simulated radios")
    parser.add_argument("--seconds", type=int, default=300, help="longest time from power-on to power-off")
    parser.add_argument("--steady", action="store_true", help="its clock counts instructions: how busy this machine is shows in no figure")
    parser.add_argument("--keep", action="store_true", help="leave the initramfs and its tree")
    parser.add_argument("--bin-dir", type=pathlib.Path, metavar="DIR", help="the programs in it, instead of crates/target/release")
    parser.add_argument("command", nargs="+", metavar="PROGRAM", help="what runs in it")
    chosen = parser.parse_args()
    try:
        return run(chosen.radios, chosen.seconds, chosen.command, chosen.steady, chosen.keep, chosen.bin_dir)
    except BuildError as error:
        print(f"vm: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
