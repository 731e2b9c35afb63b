"""Kernel modules: which ones a list names, what they need, and where they go.

The kernel package ships its modules compressed (.ko.xz) and without modules.dep. Dependencies are read
from the modules themselves (the .modinfo section), so that nothing of the host's kernel or kmod decides
what goes into the image. Modules are stored unpacked: the root image compresses them once for all, and
neither the initramfs nor busybox then needs to know about xz.
"""

import lzma
import re
import struct
from pathlib import Path


# ELF section type: occupies no bytes of the file.
NOBITS = 8


class ModuleError(Exception):
    """A modules list that can't be satisfied; the text names file and line."""


def canonical(name):
    """Module names treat '-' and '_' alike; the kernel's own spelling is '_'."""
    return name.replace("-", "_")


def module_bytes(path):
    """The ELF file of a module, unpacked."""
    data = Path(path).read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    return data


# Type information for BPF programs: a seventh of a module, parsed and kept in memory by each load, used by nothing here.
UNWANTED = (b".BTF", b".BTF.base")


def slim(elf):
    """The module without UNWANTED sections and without the signature at its end, which would no longer fit (no kernel of
    ours insists on one; dm-verity vouches for the file). Section numbers stay: a dropped section becomes an empty one."""
    shoff, = struct.unpack_from("<Q", elf, 40)
    entsize, count, strndx = struct.unpack_from("<HHH", elf, 58)
    heads = [list(struct.unpack_from("<IIQQQQIIQQ", elf, shoff + index * entsize)) for index in range(count)]
    names = heads[strndx][4]
    if not any(elf[names + h[0]:elf.index(b"\0", names + h[0])] in UNWANTED for h in heads):
        return elf
    out = bytearray(elf[:64])
    for head in heads:
        name, kind, _, _, offset, size, _, _, align, _ = head
        if elf[names + name:elf.index(b"\0", names + name)] in UNWANTED:
            head[:] = [0] * 10
            continue
        out += bytes(-len(out) % max(align, 1))
        head[4] = len(out)
        if kind != NOBITS:
            out += elf[offset:offset + size]
    out += bytes(-len(out) % 8)
    struct.pack_into("<Q", out, 40, len(out))
    for head in heads:
        out += struct.pack("<IIQQQQIIQQ", *head)
    return bytes(out)


def modinfo(elf):
    """The key=value pairs of a module's .modinfo section, in order."""
    if elf[:6] != b"\x7fELF\x02\x01":
        raise ModuleError("not a 64-bit little-endian ELF file")
    shoff, = struct.unpack_from("<Q", elf, 40)
    entsize, count, strndx = struct.unpack_from("<HHH", elf, 58)

    def section(index):
        name, _type, _flags, _addr, offset, size = struct.unpack_from("<IIQQQQ", elf, shoff + index * entsize)
        return name, offset, size

    _, names, _ = section(strndx)
    for index in range(count):
        name, offset, size = section(index)
        end = elf.index(b"\0", names + name)
        if elf[names + name:end] == b".modinfo":
            fields = elf[offset:offset + size].split(b"\0")
            return [tuple(f.decode().split("=", 1)) for f in fields if b"=" in f]
    return []


def read_list(path):
    """The sections of a modules list: {section: [(name, line number), ...]}."""
    sections, current = {}, None
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        line = line.split("#", 1)[0].strip()
        if not line:
            continue
        if line.startswith("[") and line.endswith("]"):
            current = sections.setdefault(line[1:-1], [])
        elif current is None:
            raise ModuleError(f"{path}:{number}: a module before the first [section]")
        else:
            current.extend((canonical(word), number) for word in line.split())
    return sections


class ModuleTree:
    """The modules of one kernel package: lib/modules/VERSION, below usr/ or not."""

    def __init__(self, kernel_root):
        roots = sorted(Path(kernel_root).glob("usr/lib/modules/*")) or sorted(Path(kernel_root).glob("lib/modules/*"))
        if len(roots) != 1:
            raise ModuleError(f"{kernel_root}: expected one lib/modules/VERSION, found {len(roots)}")
        self.root = roots[0]
        self.version = self.root.name
        self.paths = {}
        for path in sorted(self.root.glob("kernel/**/*.ko*")):
            self.paths[canonical(re.sub(r"\.ko(\.\w+)?$", "", path.name))] = path
        builtin = self.root / "modules.builtin"
        lines = builtin.read_text().split() if builtin.exists() else []
        self.builtin = {canonical(Path(line).stem) for line in lines}
        self._cache = {}

    def load(self, name):
        """(ELF bytes, names of needed modules, names or aliases of modules wanted first) of a module."""
        if name not in self._cache:
            elf = slim(module_bytes(self.paths[name]))
            depends, soft = [], []
            for key, value in modinfo(elf):
                if key == "depends":
                    depends += [canonical(n) for n in value.split(",") if n]
                elif key == "softdep":
                    wanted = re.split(r"\b(pre|post):", value)
                    for mode, words in zip(wanted[1::2], wanted[2::2]):
                        if mode == "pre":
                            soft += [canonical(n) for n in words.split()]
            self._cache[name] = (elf, depends, soft)
        return self._cache[name]

    def closure(self, wanted, origin):
        """Every module that `wanted` needs, each after those it needs. `wanted`: [(name, line)]."""
        order, seen = [], set()

        def visit(name, need):
            if name in seen or name in self.builtin:
                return
            seen.add(name)
            if name not in self.paths:
                raise ModuleError(f"{need}: no module '{name}' in kernel {self.version}")
            _, depends, soft = self.load(name)
            for other in soft:
                if other in self.paths or other in self.builtin:
                    visit(other, need)
            for other in depends:
                visit(other, need)
            order.append(name)

        for name, line in wanted:
            visit(name, f"{origin}:{line}")
        return order

    def install(self, names, target):
        """Writes the named modules unpacked below target/lib/modules/VERSION/kernel/..., with modules.builtin
        and modules.order beside them, for depmod."""
        base = Path(target) / "lib/modules" / self.version
        for name in names:
            relative = self.paths[name].relative_to(self.root)
            out = base / (str(relative).removesuffix(".xz"))
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_bytes(self.load(name)[0])
            out.chmod(0o644)
        for name in ("modules.builtin", "modules.order"):
            source = self.root / name
            (base / name).write_bytes(source.read_bytes() if source.exists() else b"")
        return base


def dependency_files(tree, names):
    """modules.dep and modules.alias as busybox modprobe reads them, made from the modules alone."""
    paths = {n: str(tree.paths[n].relative_to(tree.root)).removesuffix(".xz") for n in names}
    dep, alias = [], []
    for name in sorted(names, key=lambda n: paths[n]):
        needed = tree.closure([(name, 0)], "modules.dep")[:-1]
        _, _, soft = tree.load(name)
        hard = [n for n in needed if n in paths]
        # modprobe loads a line's modules from right to left, so the first needed stands last.
        dep.append(f"{paths[name]}:" + "".join(f" {paths[n]}" for n in reversed(hard)))
        for key, value in modinfo(tree.load(name)[0]):
            if key == "alias":
                alias.append(f"alias {value} {name}")
    return "\n".join(dep) + "\n", "# Aliases extracted from the modules themselves.\n" + "\n".join(alias) + "\n"
