"""The image recipes' tasks: lay packages over each other into the staged root, then have the card assembled."""

from __future__ import annotations

import filecmp
import os
import pathlib
import shutil

import bb
from common import BuildError, say
from metadata import where
from thirdparty import SYSTEM_APPLETS

# The runner (build.Runner) that executes the tasks; set by it.
runner = None

# Packages whose files may replace another package's: the overlay is configuration of the whole node.
OVERLAYS = {"p2pmesh-overlay"}


class Root:
    """A staged root file system that remembers which package each file came from."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.owner: dict[str, str] = {}
        self.laid: set[str] = set()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)

    def put(self, package: str, source, place: str) -> None:
        """Copy file `source` (or make a link to the text `source`) at `place`; two packages may not differ about a file."""
        target = self._resolve(place)
        if os.path.lexists(target):
            if self._same(source, target):
                return
            if package not in OVERLAYS:
                raise BuildError(f"{package} and {self.owner.get(place, 'another package')} both bring /{place}, and they differ")
            target.unlink()
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(source, str):
            target.symlink_to(source)
        elif source.is_symlink():
            target.symlink_to(os.readlink(source))
        else:
            shutil.copy2(source, target)
        self.owner[place] = package

    def tree(self, package: str, source: pathlib.Path) -> None:
        """Lay a recipe's ${D} into the root."""
        self.laid.add(package)
        for here, folders, files in os.walk(source):
            relative = os.path.relpath(here, source)
            folders.sort()
            for name in list(folders):
                path = pathlib.Path(here) / name
                place = os.path.normpath(os.path.join(relative, name))
                if path.is_symlink():
                    self.put(package, path, place)
                    folders.remove(name)
                    continue
                target = self._resolve(place)
                if not target.is_dir():
                    if os.path.lexists(target):
                        raise BuildError(f"{package} brings the folder /{place}, and {self.owner.get(place)} a file of that name")
                    target.mkdir(parents=True)
                    shutil.copymode(path, target)
            for name in sorted(files):
                self.put(package, pathlib.Path(here) / name, os.path.normpath(os.path.join(relative, name)))

    def _resolve(self, place: str) -> pathlib.Path:
        """The path in the folder, with links of the root's own parents (bin -> usr/bin) followed inside it."""
        path = self.folder
        parts = pathlib.PurePosixPath(place.lstrip("/")).parts
        for part in parts[:-1]:
            path = path / part
            if path.is_symlink():
                link = os.readlink(path)
                path = self.folder / link.lstrip("/") if link.startswith("/") else pathlib.Path(os.path.normpath(path.parent / link))
        return path / parts[-1]

    @staticmethod
    def _same(source, target: pathlib.Path) -> bool:
        if isinstance(source, str):
            return target.is_symlink() and os.readlink(target) == source
        if source.is_symlink() or target.is_symlink():
            return source.is_symlink() and target.is_symlink() and os.readlink(source) == os.readlink(target)
        return target.is_file() and filecmp.cmp(source, target, shallow=False)


def stage(d) -> None:
    """do_rootfs: everything of IMAGE_INSTALL and what it needs, in one folder."""
    name = d.getVar("PN")
    root = Root(pathlib.Path(d.getVar("IMAGE_ROOTFS")))
    packages = runner.packages(d)
    # Ours first, so that a clash is told of the third-party package; an overlay goes over everything.
    ours = [package for package in packages if runner.metadata.recipe_for(package) is not None]
    for package in [*ours, *packages]:
        if package in OVERLAYS:
            continue
        if package not in ours:
            runner.thirdparty.lay(package, lambda source, place, package=package: root.put(package, source, place))
        elif package not in root.laid:
            root.tree(package, _result(package))
    if "busybox" in packages:
        _applets(root)
    for package in ours:
        if package in OVERLAYS:
            root.tree(package, _result(package))
    count = sum(len(files) for _, _, files in os.walk(root.folder))
    say(f"{name}: {len(packages)} packages, {count} files staged in {os.path.relpath(root.folder)}")


def _result(package: str) -> pathlib.Path:
    return pathlib.Path(runner.metadata.recipe_for(package).getVar("D"))


def _applets(root: Root) -> None:
    """A link for each busybox applet that no other package brings as a program of its own."""
    for applet in runner.thirdparty.applets:
        if any(os.path.lexists(root.folder / "usr" / place / applet) for place in ("bin", "sbin")):
            continue
        folder = "sbin" if applet in SYSTEM_APPLETS else "bin"
        root.put("busybox", "busybox" if folder == "bin" else "../bin/busybox", f"usr/{folder}/{applet}")


def image(d) -> None:
    """do_image: run IMAGE_CMD of every type in IMAGE_FSTYPES; hand the root over as a folder where the type is cpio."""
    for kind in (d.getVar("IMAGE_FSTYPES") or "").split():
        if kind == "cpio":
            place = pathlib.Path(d.getVar("DEPLOY_DIR_IMAGE")) / f"{d.getVar('PN')}-{d.getVar('MACHINE')}.rootfs"
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.is_symlink():
                place.unlink()
            place.symlink_to(d.getVar("IMAGE_ROOTFS"))
            continue
        local = bb.data.createCopy(d)
        local.setVar("OVERRIDES", f"{kind}:{d.getVar('OVERRIDES')}")
        command = local.getVar("IMAGE_CMD")
        if not command:
            raise BuildError(f"{where(d, 'IMAGE_FSTYPES', kind)}: no IMAGE_CMD for image type {kind} of {d.getVar('PN')}")
        task = f"do_image_{kind}"
        d.setVar(task, command)
        d.setVarFlag(task, "func", "1")
        runner.metadata.check_function(d, task, d.getVar("FILE"), set())
        bb.build.exec_func(task, d)
