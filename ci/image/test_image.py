"""The assembler: formats against their definitions and other tools, and the same bytes from the same inputs.

Inputs are made here (a few modules, a small root, stand-ins for kernel and firmware), so that nothing has to be
built or fetched first.
"""

import hashlib
import json
import lzma
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree
import zlib
from pathlib import Path
from types import SimpleNamespace

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import assemble  # noqa: E402
import card  # noqa: E402
import cpio  # noqa: E402
import envsector  # noqa: E402
import kmods  # noqa: E402
import rootfs  # noqa: E402
import slot  # noqa: E402
import verity  # noqa: E402

BOARD = HERE.parents[1] / "board/raspberrypi"
EPOCH = 1_700_000_000


def pseudo_bytes(length, seed=1):
    """Bytes that do not compress, the same every time."""
    out = bytearray()
    while len(out) < length:
        out += hashlib.sha256(f"{seed}:{len(out)}".encode()).digest()
    return bytes(out[:length])


def fake_module(btf=b"", **info):
    """An ELF file with nothing but a .modinfo section, and a .BTF section before it if wanted."""
    modinfo = b"".join(f"{key}={value}".encode() + b"\0" for key, values in info.items() for value in values)
    names = b"\0.modinfo\0.shstrtab\0.BTF\0"
    parts = [(names.index(b".BTF"), btf), (1, modinfo), (names.index(b".shstrtab"), names)][0 if btf else 1:]
    heads, body = [bytes(64)], b""
    for name, data in parts:
        heads.append(struct.pack("<IIQQQQIIQQ", name, 1, 0, 0, 64 + len(body), len(data), 0, 0, 1, 0))
        body += data
    count = len(heads)
    head = struct.pack("<6s10xHHIQQQIHHHHHH", b"\x7fELF\x02\x01", 1, 183, 1, 0, 0, 64 + len(body), 0, 64, 0, 0, 64, count, count - 1)
    return head + body + b"".join(heads)


def newc(archive):
    """The entries of a newc archive: (name, mode, (uid, gid), (major, minor), data)."""
    at = 0
    while True:
        fields = [int(archive[at + 6 + 8 * n:at + 14 + 8 * n], 16) for n in range(13)]
        assert archive[at:at + 6] == b"070701"
        name = archive[at + 110:at + 110 + fields[11] - 1].decode()
        start = at + -(-(110 + fields[11]) // 4) * 4
        yield name, fields[1], (fields[2], fields[3]), (fields[9], fields[10]), archive[start:start + fields[6]]
        at = start + -(-fields[6] // 4) * 4
        if name == "TRAILER!!!":
            return


def owner_of(image, kind, path):
    """(mode, uid, gid) of a file in a root image."""
    if kind == "erofs":
        out = subprocess.run(["dump.erofs", f"--path={path or '/'}", str(image)], capture_output=True, text=True, check=True).stdout
        found = re.search(r"Uid: (\d+)\s+Gid: (\d+)\s+Access: (\d+)", out)
        return int(found[3], 8), int(found[1]), int(found[2])
    out = subprocess.run(["unsquashfs", "-lln", str(image)], capture_output=True, text=True, check=True).stdout
    for line in out.splitlines():
        words = line.split(None, 5)
        if len(words) == 6 and words[5] == f"squashfs-root{path}":
            bits = "".join("0" if letter == "-" else "1" for letter in words[0][1:])
            uid, gid = words[1].split("/")
            return int(bits, 2), int(uid), int(gid)
    raise AssertionError(f"{path} is not in the image")


class Inputs:
    """All that the assembler needs, below one folder; `reverse` creates files in another order."""

    def __init__(self, folder, reverse=False):
        self.folder = Path(folder)
        modules = kmods.read_list(BOARD / "modules.list")
        names = sorted({name for section in modules.values() for name, _ in section} | {"erofs", "squashfs", "helper"})
        files = {f"kernel/usr/lib/modules/6.12.0-test/kernel/drivers/{name}.ko.xz":
                 lzma.compress(fake_module(name=[name], depends=["helper" if name == "dm_verity" else ""], alias=[f"test:{name}*"]))
                 for name in names}
        files["kernel/boot/vmlinuz-6.12.0-test"] = pseudo_bytes(300_000)
        for line in (BOARD / "firmware.list").read_text().splitlines():
            if line and not line.startswith("#"):
                files["firmware/" + line.split()[0].replace("*", "6.12.0-test")] = pseudo_bytes(5000, line)
        files |= {f"root/usr/share/file{n}": pseudo_bytes(3000, n) for n in range(40)}
        files |= {"root/bin/tool": b"#!/bin/sh\n", "root/etc/secret": b"x", "init": pseudo_bytes(20_000)}
        for name in sorted(files, reverse=reverse):
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(files[name])
        (self.folder / "root/bin/tool").chmod(0o775)
        os.symlink("tool", self.folder / "root/bin/alias")
        (self.folder / "owners").write_text("etc/secret 0640 0 900  # comment\n/bin/tool - 7 8\n")

    def arguments(self, out, **changes):
        """The parsed command line."""
        f = self.folder
        values = {"rootfs": f / "root", "owners": f / "owners", "kernel": f / "kernel", "init": f / "init",
                  "firmware": [f / "firmware"], "board": BOARD, "name": "rpi-arm64", "version": "1.2.3", "epoch": EPOCH,
                  "out": out, "work": None, "root_format": None, "no_compress": False}
        return SimpleNamespace(**(values | changes))


class Formats(unittest.TestCase):
    """Each format alone."""

    def test_environment_has_uboots_checksum_and_survives_a_round_trip(self):
        sector = envsector.encode({"A": "1", "B": "two words"})
        self.assertEqual(len(sector), 512)
        self.assertEqual(envsector.decode(sector), {"A": "1", "B": "two words"})
        self.assertIsNone(envsector.decode(sector[:-1] + b"x"))
        with self.assertRaises(ValueError):
            envsector.encode({"A": "x" * 600})

    def test_boot_state_bytes_are_what_the_boot_script_exports(self):
        # Captured from U-Boot 2025.01: env export -c -s 200 of these four variables (sorted by name there).
        body = b"BOOT_A_LEFT=2\0BOOT_B_LEFT=0\0BOOT_ORDER=A B\0BS_SEQ=3\0\0"
        body = body.ljust(508, b"\0")
        pairs = envsector.decode(struct.pack("<I", zlib.crc32(body)) + body)
        self.assertEqual(pairs, envsector.decode(envsector.boot_state(3, a_left=2, b_left=0)))

    # Blocks of pseudo_bytes, root hash, SHA-256 of superblock and tree: what `veritysetup format` 2.6.1 printed and
    # wrote with our salt and UUID. 1: no tree; 128: one hash block, full; 129: two levels.
    VERITYSETUP = [
        (1, "d079e9ee4194224f49976f3aadf890f3c311d19f5456253fbcfee059a4aed5da",
         "e56a4115ae6671a2847b9389c431e387c8339daece26340163d65b2e312ed799"),
        (2, "760aeddfaea0fd6883e187c2172f15ab4f31e0313c8323ff8bf0d6ae5ada4198",
         "44070879fde66e43dcdedbf52c53c7ff20ef6a2ec3fde6af914ebaf340b27cb8"),
        (128, "b9c406d69aa9319fa403db38d75bebbc2c23186723382e9c89f598495df10ba8",
         "e23c7fbdff69ef4a99c2e46a1837360052745ade13432ca6425c79997cf16f4c"),
        (129, "c456d0f74075bc9a82d009844b943f74cd934a6c4de647301485575dbb919a94",
         "44bfcd20540db8e7e527ee41071a2e0364286108ea236ae88cb548c019bbd088"),
        (300, "d8a6620ead51a53bca68e5367f4928b0e785d522b4adb97c61739f8e4de55a64",
         "28d1b8b03db02f927aa46c443d53a5f33d9797fd38d6348c7a06e7e4bbd67d2d"),
    ]

    def test_verity_tree_is_what_veritysetup_makes(self):
        for blocks, root_hash, tree_hash in self.VERITYSETUP:
            with self.subTest(blocks=blocks):
                root, tree = verity.build(pseudo_bytes(blocks * 4096), slot.SALT, slot.TREE_UUID)
                self.assertEqual(root.hex(), root_hash)
                self.assertEqual(hashlib.sha256(tree).hexdigest(), tree_hash)

    def test_initramfs_lists_sorted_root_owned_files_and_the_console(self):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder, "root")
            (root / "a").mkdir(parents=True)
            (root / "a/data").write_bytes(b"odd")
            (root / "init").write_bytes(b"run")
            (root / "init").chmod(0o700)
            os.symlink("a/data", root / "link")
            entries = {name: (mode, owner, device, data) for name, mode, owner, device, data in newc(cpio.archive(root, EPOCH))}
        self.assertEqual(list(entries), ["a", "a/data", "dev", "init", "link", "dev/console", "dev/kmsg", "TRAILER!!!"])
        self.assertEqual(entries["init"], (0o100755, (0, 0), (0, 0), b"run"))
        self.assertEqual(entries["a/data"], (0o100644, (0, 0), (0, 0), b"odd"))
        self.assertEqual(entries["link"], (0o120777, (0, 0), (0, 0), b"a/data"))
        self.assertEqual(entries["dev/console"], (0o020600, (0, 0), (5, 1), b""))

    def test_slot_header_points_at_its_parts(self):
        data, pairs, _ = slot.build("9", b"initramfs", b"kernel" * 200_000, pseudo_bytes(10_000))
        self.assertEqual(envsector.decode(data[:512]), pairs)
        at = int(pairs["S_KOFF"], 16) * 512
        self.assertEqual(data[at:at + int(pairs["S_KLEN"], 16)], b"kernel" * 200_000)
        self.assertEqual(int(pairs["S_ROFF"], 16) % 128, 0, "the root image begins on a multiple of 64 KiB")
        self.assertEqual(int(pairs["S_RCNT"], 16) % 8, 0, "whole 4096-byte blocks")


class Modules(unittest.TestCase):
    """The module list and its closure."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.base = Path(self.folder.name, "usr/lib/modules/6")
        (self.base / "kernel").mkdir(parents=True)
        for name, depends, soft in (("top", "mid-one,low", []), ("mid-one", "low", ["pre: soft_one built-in"]), ("low", "", []),
                                    ("soft_one", "", ["post: top"])):
            (self.base / f"kernel/{name}.ko").write_bytes(fake_module(name=[name], depends=[depends], softdep=soft, alias=["x:" + name]))
        (self.base / "modules.builtin").write_text("kernel/fs/built-in.ko\n")
        self.tree = kmods.ModuleTree(self.folder.name)

    def test_needed_modules_come_first(self):
        self.assertEqual(self.tree.closure([("top", 1)], "list"), ["soft_one", "low", "mid_one", "top"])

    def test_built_in_names_are_accepted_and_unknown_ones_named_with_their_line(self):
        self.assertEqual(self.tree.closure([("built_in", 1)], "list"), [])
        with self.assertRaisesRegex(kmods.ModuleError, "list:7: no module 'nothing'"):
            self.tree.closure([("nothing", 7)], "list")

    def test_modprobe_files(self):
        dep, alias = kmods.dependency_files(self.tree, ["top", "mid_one", "low", "soft_one"])
        self.assertIn("kernel/top.ko: kernel/mid-one.ko kernel/low.ko", dep.replace(" kernel/soft_one.ko", ""))
        self.assertIn("alias x:top top\n", alias)

    def test_type_information_and_the_signature_over_it_are_dropped(self):
        info = {"name": ["x"], "alias": ["y"]}
        plain = fake_module(**info)
        self.assertEqual(kmods.slim(plain), plain, "nothing to drop: not touched")
        slim = kmods.slim(fake_module(b"type information", **info) + b"~Module signature appended~\n")
        self.assertNotIn(b"type information", slim)
        self.assertNotIn(b"signature appended", slim)
        self.assertEqual(kmods.modinfo(slim), [("name", "x"), ("alias", "y")])
        self.assertEqual(struct.unpack_from("<HH", slim, 60), (4, 3), "section numbers stay")

    def test_a_list_with_a_module_before_a_section_is_refused(self):
        path = Path(self.folder.name, "list")
        path.write_text("# comment\next4\n")
        with self.assertRaisesRegex(kmods.ModuleError, "list:2"):
            kmods.read_list(path)


class WholeImage(unittest.TestCase):
    """The assembler end to end."""

    @classmethod
    def setUpClass(cls):
        tools = ("mkimage", "mkfs.fat", "mcopy", "mkfs.erofs", "dump.erofs", "mksquashfs", "unsquashfs", "xz")
        missing = [tool for tool in tools if not shutil.which(tool)]
        if missing:
            raise unittest.SkipTest(f"not installed: {', '.join(missing)}")
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        base = Path(cls.folder.name)
        old = os.umask(0o022)
        cls.addClassCleanup(os.umask, old)
        cls.inputs = Inputs(base / "one")
        cls.sizes = assemble.assemble(cls.inputs.arguments(base / "one/out"))
        cls.out = base / "one/out"
        os.umask(0o077)
        cls.other = Inputs(base / "another-place", reverse=True)
        assemble.assemble(cls.other.arguments(base / "another-place/out"))
        cls.image = cls.out / "p2pmesh-rpi-arm64-1.2.3.img"
        cls.layout = card.Layout(BOARD / "layout.ini")

    def test_two_folders_give_the_same_bytes(self):
        names = sorted(p.relative_to(self.out) for p in self.out.rglob("*") if p.is_file())
        self.assertEqual(len([name for name in names if len(name.parts) == 1]), 6)
        self.assertIn("firmware", {name.parts[0] for name in names})
        for name in names:
            ours, theirs = (self.out / name).read_bytes(), (self.other.folder / "out" / name).read_bytes()
            self.assertTrue(ours == theirs, f"{name} differs")

    def test_partition_table_and_boot_state(self):
        data = self.image.read_bytes()
        self.assertEqual(data[510:512], b"\x55\xaa")
        self.assertEqual(struct.unpack_from("<I", data, 440)[0], 0x6d703270)
        parts = [struct.unpack_from("<B3xB3xII", data, 446 + 16 * n) for n in range(4)]
        mib = 2048
        self.assertEqual(parts, [(0x80, 0x0C, 16 * mib, 48 * mib), (0, 0xDA, 64 * mib, 64 * mib), (0, 0xDA, 128 * mib, 64 * mib),
                                 (0, 0x83, 192 * mib, 4 * mib)])
        for lba in (0x2000, 0x4000):
            self.assertEqual(envsector.decode(data[lba * 512:lba * 512 + 512])["BOOT_ORDER"], "A B")
        self.assertLessEqual(len(data), 200 << 20)

    def test_slot_a_is_the_slot_file_and_slot_b_is_empty(self):
        data, slot_file = self.image.read_bytes(), (self.out / "p2pmesh-rpi-arm64-1.2.3.slot").read_bytes()
        at = self.layout.slots[0]
        self.assertTrue(data[at:at + len(slot_file)] == slot_file)
        self.assertEqual(data[self.layout.slots[1]:].count(0), len(data) - self.layout.slots[1])
        self.assertEqual(envsector.decode(slot_file[:512])["S_VER"], "1.2.3")

    def test_fat_holds_the_boot_files_with_fixed_times(self):
        listing = subprocess.run(["mdir", "-i", f"{self.image}@@16M", "-/", "::"], capture_output=True, text=True, check=True,
                                 env=dict(os.environ, TZ="UTC", MTOOLS_SKIP_CHECK="1")).stdout
        for name in ("bootcode bin", "start    elf", "start4   elf", "u-boot   bin", "boot     scr", "uboot    env", "README   txt",
                     "bcm2837-rpi-zero-2-w.dtb", "bcm2711-rpi-4-b.dtb", "p2pmesh.toml"):
            self.assertIn(name, listing)
        self.assertIn("Serial Number is 7032-6D70", listing)
        dated = [line for line in listing.splitlines() if "20" in line and "-" in line and ":" in line]
        files = [line for line in dated if not line.startswith((" Volume", "Directory"))]
        self.assertGreater(len(files), 15)
        self.assertEqual([line for line in files if "2023-11-14  22:13" not in line], [])

    def test_owners_and_modes_come_from_the_table(self):
        wanted = {"/etc/secret": (0o640, 0, 900), "/bin/tool": (0o755, 7, 8), "/usr/share/file1": (0o644, 0, 0), "": (0o755, 0, 0)}
        for kind in ("erofs", "squashfs"):
            with self.subTest(kind):
                out = Path(self.folder.name, f"owners-{kind}")
                assemble.assemble(self.inputs.arguments(out, root_format=kind, no_compress=True))
                card_bytes = (out / "p2pmesh-rpi-arm64-1.2.3.slot").read_bytes()
                header = envsector.decode(card_bytes[:512])
                at = int(header["S_ROFF"], 16) * 512
                root = Path(self.folder.name, f"root.{kind}")
                root.write_bytes(card_bytes[at:at + int(header["S_RCNT"], 16) * 512])
                for path, entry in wanted.items():
                    self.assertEqual(owner_of(root, kind, path), entry, path)

    def test_block_map_covers_everything_that_must_be_written(self):
        tree = xml.etree.ElementTree.parse(self.out / "p2pmesh-rpi-arm64-1.2.3.bmap").getroot()
        data, block = self.image.read_bytes(), int(tree.find("BlockSize").text)
        rest, mapped = bytearray(data), 0
        for item in tree.find("BlockMap"):
            low, _, high = item.text.partition("-")
            low, high = int(low) * block, (int(high or low) + 1) * block
            self.assertEqual(hashlib.sha256(data[low:high]).hexdigest(), item.attrib["chksum"])
            rest[low:high] = bytes(high - low)
            mapped += (high - low) // block
        self.assertEqual(rest.count(0), len(rest), "data outside of the map")
        self.assertEqual(mapped, int(tree.find("MappedBlocksCount").text))
        text = (self.out / "p2pmesh-rpi-arm64-1.2.3.bmap").read_text()
        checksum = tree.find("BmapFileChecksum").text
        self.assertEqual(hashlib.sha256(text.replace(checksum, "0" * 64).encode()).hexdigest(), checksum)

    def test_sums_and_compressed_image_agree_with_the_image(self):
        subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=self.out, check=True)
        unpacked = subprocess.run(["xz", "-dc", f"{self.image}.xz"], capture_output=True, check=True).stdout
        self.assertTrue(unpacked == self.image.read_bytes())
        self.assertEqual(json.loads((self.out / "sizes.json").read_text())["slot"]["used"], self.sizes["slot"]["used"])

    def test_wrong_inputs_are_named(self):
        out = Path(self.folder.name, "bad")
        shutil.rmtree(out, ignore_errors=True)
        with self.assertRaisesRegex(assemble.AssembleError, r"firmware.list:\d+: .*found 0 files"):
            assemble.assemble(self.inputs.arguments(out, firmware=[]))
        owners = Path(self.folder.name, "owners")
        owners.write_text("etc/secret 0640 0\n")
        with self.assertRaisesRegex(rootfs.RootError, "owners:1: expected PATH MODE UID GID"):
            assemble.assemble(self.inputs.arguments(out, owners=owners))
        owners.write_text("etc/absent 0640 0 0\n")
        with self.assertRaisesRegex(rootfs.RootError, "etc/absent"):
            assemble.assemble(self.inputs.arguments(out, owners=owners))


if __name__ == "__main__":
    unittest.main()
