#!/usr/bin/env python3
"""Assembles the SD-card image from a staged root, a kernel package, /init, boot firmware and a board folder.

Same inputs, same bytes: no clock, no random numbers, no owner and no path of the builder gets in.
Results in --out: p2pmesh-<board>-<version>.img, .img.xz, .bmap, .slot (the raw slot that an update carries),
SHA256SUMS and sizes.json.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import card
import cpio
import envsector
import kmods
import rootfs
import slot

# The boot script loads the initramfs below the device tree's place and the kernel below its own output.
MAX_INITRAMFS = 16 << 20
MAX_KERNEL = 32 << 20


class AssembleError(Exception):
    """Inputs that make no image; the text says which file and why."""


def find_kernel(root):
    """(vmlinuz path, package root) of --kernel: an unpacked kernel package."""
    found = sorted(Path(root).glob("boot/vmlinuz-*")) + sorted(Path(root).glob("usr/lib/modules/*/vmlinuz"))
    if len(found) != 1:
        raise AssembleError(f"{root}: expected one boot/vmlinuz-*, found {len(found)}")
    return found[0]


def firmware_files(board, roots):
    """{name on the card: bytes} of board/firmware.list, looked up in the package roots."""
    files, path = {}, board / "firmware.list"
    for number, line in enumerate(path.read_text().splitlines(), 1):
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        found = [match for root in roots for match in sorted(Path(root).glob(words[0]))]
        if len(found) != 1:
            raise AssembleError(f"{path}:{number}: {words[0]}: found {len(found)} files, expected one")
        files[words[1] if len(words) > 1 else found[0].name] = found[0].read_bytes()
    return files


def boot_files(board, epoch, work):
    """The board's own files for the FAT partition: configuration, script, environment, text for people."""
    script = work / "boot.scr"
    result = subprocess.run(
        ["mkimage", "-A", "arm64", "-O", "linux", "-T", "script", "-C", "none", "-n", "p2pmesh", "-d",
         str(board / "boot.cmd"), str(script)],
        env={"SOURCE_DATE_EPOCH": str(epoch), "PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False)
    if result.returncode:
        raise AssembleError(f"mkimage failed: {result.stderr.strip() or result.stdout.strip()}")
    pairs = {}
    for line in (board / "uboot.env.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            key, _, value = line.partition("=")
            pairs[key] = value
    files = {"boot.scr": script.read_bytes(), "uboot.env": envsector.encode(dict(sorted(pairs.items())), 0x4000)}
    files["config.txt"] = (board / "config.txt").read_bytes()
    for name in ("README.txt", "p2pmesh.toml"):
        # Text for people: line ends that every editor on every system shows as lines.
        files[name] = (board / name).read_text().replace("\n", "\r\n").encode()
    return files


def keep_firmware(files, folder):
    """Puts what `mesh-bundle firmware` takes into a folder: all of the FAT partition that is no text for people."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, data in files.items():
        if name not in ("README.txt", "p2pmesh.toml"):
            (folder / name).write_bytes(data)


def make_initramfs(tree, modules, init, epoch):
    """The initramfs: /init, its modules and the order they are loaded in."""
    names = tree.closure(modules, "modules.list")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("dev", "proc", "sys", "root", "etc", "modules"):
            (root / name).mkdir()
        shutil.copyfile(init, root / "init")
        (root / "init").chmod(0o755)
        for name in names:
            (root / "modules" / f"{name}.ko").write_bytes(tree.load(name)[0])
        (root / "etc/modules.list").write_text("".join(f"{name}\n" for name in names))
        return slot.compress(cpio.archive(root, epoch))


def make_root(args, tree, names, kind, work):
    """The root image: the staged root plus the named kernel modules, packed."""
    staged = work / "root"
    shutil.copytree(args.rootfs, staged, symlinks=True)
    # A root with a merged /usr has lib as a link: follow it.
    base = tree.install(names, staged / "usr" if (staged / "lib").is_symlink() else staged)
    dep, alias = kmods.dependency_files(tree, names)
    (base / "modules.dep").write_text(dep)
    (base / "modules.alias").write_text(alias)
    for name in ("boot", "data", "dev", "etc", "proc", "run", "sys", "tmp", "var"):
        (staged / name).mkdir(exist_ok=True)
    out = work / "root.img"
    rootfs.build(staged, args.owners, out, kind, args.epoch)
    return out.read_bytes()


def write_xz(source, target):
    """xz in two threads and fixed blocks: the same bytes on a machine with one core and with many."""
    with open(target, "wb") as out:
        subprocess.run(["xz", "-c", "-6", "-T2", "--block-size=25165824", str(source)], stdout=out, check=True)


def assemble(args):
    """Makes everything; returns the sizes by part."""
    board, out = Path(args.board), Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    layout = card.Layout(board / "layout.ini")
    tree = kmods.ModuleTree(args.kernel)
    modules = kmods.read_list(board / "modules.list")
    root_format = args.root_format or layout.root_format
    name = f"p2pmesh-{args.name}-{args.version}"
    with tempfile.TemporaryDirectory(prefix="assemble-", dir=args.work) as folder:
        work = Path(folder)
        kernel = slot.compress(find_kernel(args.kernel).read_bytes())
        early = [*modules["initramfs"], (root_format, 0)]
        initramfs = make_initramfs(tree, early, args.init, args.epoch)
        if len(initramfs) > MAX_INITRAMFS or len(kernel) > MAX_KERNEL:
            raise AssembleError(f"kernel ({len(kernel)}) or initramfs ({len(initramfs)}) larger than the boot script loads")
        root = make_root(args, tree, tree.closure(modules["rootfs"] + early, "modules.list"), root_format, work)
        slot_bytes, _, parts = slot.build(args.version, initramfs, kernel, root, args.epoch)
        (out / f"{name}.slot").write_bytes(slot_bytes)
        files = {**firmware_files(board, [args.kernel, *args.firmware]), **boot_files(board, args.epoch, work)}
        card.fat(layout, files, work / "fat.img", args.epoch)
        keep_firmware(files, out / "firmware")
        image = out / f"{name}.img"
        must_write = card.image(layout, image, work / "fat.img", slot_bytes)
    (out / f"{name}.bmap").write_text(card.block_map(image, must_write))
    products = [image, out / f"{name}.bmap", out / f"{name}.slot"]
    if not args.no_compress:
        write_xz(image, out / f"{name}.img.xz")
        products.append(out / f"{name}.img.xz")
    sizes = {"version": args.version, "slot": {**parts, "used": len(slot_bytes)}, "fat": {n: len(d) for n, d in sorted(files.items())},
             "files": {p.name: p.stat().st_size for p in products}}
    (out / "sizes.json").write_text(json.dumps(sizes, indent=2) + "\n")
    sums = "".join(f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}\n" for p in sorted(products))
    (out / "SHA256SUMS").write_text(sums)
    return sizes


def parser():
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    p.add_argument("--rootfs", required=True, help="staged root file system, without kernel modules")
    p.add_argument("--owners", help="owners table (PATH MODE UID GID); default: everything is root's")
    p.add_argument("--kernel", required=True, help="unpacked kernel package: boot/vmlinuz-*, lib/modules, device trees")
    p.add_argument("--init", required=True, help="the initramfs' /init (mesh-boot, static arm64)")
    p.add_argument("--firmware", action="append", default=[], help="unpacked firmware package; may be given more than once")
    p.add_argument("--board", required=True, help="board folder, board/raspberrypi")
    p.add_argument("--name", default="rpi-arm64", help="name of the board in file names")
    p.add_argument("--version", required=True, help="version of the image")
    p.add_argument("--epoch", required=True, type=int, help="time stamp of every file, seconds since 1970")
    p.add_argument("--out", required=True, help="folder for the results")
    p.add_argument("--work", help="folder for temporary files")
    p.add_argument("--root-format", choices=("erofs", "squashfs"), help="default: the board's layout.ini")
    p.add_argument("--no-compress", action="store_true", help="no .img.xz")
    return p


def main():
    """Command line entry."""
    args = parser().parse_args()
    try:
        sizes = assemble(args)
    except (AssembleError, card.CardError, kmods.ModuleError, rootfs.RootError, OSError, ValueError) as error:
        print(f"assemble: {error}", file=sys.stderr)
        return 1
    mb = {key: f"{value / 1e6:.1f}" for key, value in sizes["slot"].items()}
    print("assemble: slot " + ", ".join(f"{key} {value} MB" for key, value in mb.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
