"""The debian provider: builds the image recipe and all it needs. Run by ./build.sh in BitBake's virtual environment.

A recipe is built again only when something it is made of changed: its files, classes, sources, or the *results* of what it
depends on (a rebuild that gives the same bytes stops there).
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import metadata as meta
import bb
import crates
import manifest
import rootfs
import rust
import sources
from common import BUILD, TREE, BuildError, locked, say
from thirdparty import ThirdParty

CODE = pathlib.Path(__file__).resolve().parent


def digest_file(path: pathlib.Path) -> str:
    """SHA-256 of a file's bytes, or of a link's target."""
    if path.is_symlink():
        return "link:" + os.readlink(path)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "none"


def digest_tree(folder: pathlib.Path) -> str:
    """Of every file's path, mode and content below `folder`; of a file, its content."""
    if not folder.is_dir():
        return f"{folder.stat().st_mode & 0o777:o} {digest_file(folder)}" if folder.is_file() else digest_file(folder)
    digest = hashlib.sha256()
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in ("__pycache__", "target", ".git"))
        for name in sorted(files) + [name for name in folders if os.path.islink(os.path.join(here, name))] + ["."]:
            path = pathlib.Path(here) / name
            mode = 0 if path.is_symlink() else path.stat().st_mode & 0o777
            digest.update(f"{path.relative_to(folder)}\0{mode:o}\0{digest_file(path)}\n".encode())
    return digest.hexdigest()


class Runner:
    """Walks from the target to everything it needs, and runs what is out of date."""

    def __init__(self, meta_data: meta.Metadata, third: ThirdParty, state: pathlib.Path):
        self.metadata = meta_data
        self.thirdparty = third
        self.state = state
        self.done: dict[str, str] = {}      # name -> digest of its result
        self.stack: list[str] = []
        self.ran: list[str] = []
        self._workspace: crates.Workspace | None = None
        self._rust: str | None = None
        # Its tests are no part of what is built.
        parts = [part for part in sorted(CODE.iterdir()) if not part.name.startswith(("test_", "__"))]
        self.code = repr([(part.name, digest_tree(part)) for part in parts])
        self.had_crates = (BUILD / "cargo-arm64").exists()
        rootfs.runner = self

    # -- what needs what ------------------------------------------------------------------------------------------------

    def packages(self, image) -> list[str]:
        """IMAGE_INSTALL of an image recipe and all its run-time dependencies, each once, dependencies first."""
        found: list[str] = []

        def visit(name: str, wanted_by, variable: str) -> None:
            if name in found:
                return
            recipe = self.metadata.recipe_for(name)
            if recipe is None and name not in self.thirdparty.table:
                raise BuildError(f"{meta.where(wanted_by, variable, name)}: {name} is neither a recipe nor in "
                                 "ci/provider/packages.ini")
            if recipe is not None:
                for needed in (recipe.getVar(f"RDEPENDS:{name}") or "").split():
                    visit(needed, recipe, f"RDEPENDS:{name}")
            found.append(name)

        for name in (image.getVar("IMAGE_INSTALL") or "").split():
            visit(name, image, "IMAGE_INSTALL")
        return found

    def needs(self, recipe) -> list[tuple[str, str]]:
        """(name, variable that says so) of everything to build before `recipe`."""
        found = [(name, "DEPENDS") for name in (recipe.getVar("DEPENDS") or "").split()]
        # Types of images not built here bring their task's dependencies along: only tasks that will run count.
        wanted = {f"do_image_{kind}" for kind in (recipe.getVar("IMAGE_FSTYPES") or "").split()}
        for task in [*meta.tasks(recipe), *sorted(wanted)]:
            for word in (recipe.getVarFlag(task, "depends") or "").split():
                found.append((word.partition(":")[0], task))
        if recipe.getVar("IMAGE_INSTALL"):
            found += [(name, "IMAGE_INSTALL") for name in self.packages(recipe)]
        # Downloads first: a package that can't be had is told before an hour of compiling.
        return sorted(dict.fromkeys(found), key=lambda need: self.metadata.recipe_for(need[0]) is not None)

    # -- building ---------------------------------------------------------------------------------------------------------

    def build(self, name: str, wanted_by=None, variable: str = "") -> str:
        """Bring `name` up to date; gives the digest of its result."""
        if name in self.done:
            return self.done[name]
        recipe = self.metadata.recipe_for(name)
        place = meta.where(wanted_by, variable, name) if wanted_by is not None else "the command line"
        if recipe is None:
            result = self._third_party(name, place)
        elif name in self.stack:
            raise BuildError(f"{place}: dependency cycle: {' -> '.join([*self.stack[self.stack.index(name):], name])}")
        else:
            self.stack.append(name)
            inputs = [f"{needed} {self.build(needed, recipe, why)}" for needed, why in self.needs(recipe)]
            self.stack.pop()
            result = self._recipe(name, recipe, inputs)
        self.done[name] = result
        return result

    def _third_party(self, name: str, place: str) -> str:
        entry = self.thirdparty.table.get(name)
        if entry is None:
            raise BuildError(f"{place}: {name} is neither a recipe nor in ci/provider/packages.ini")
        if "tool" in entry.fields:
            self.thirdparty.check_tool(name, place)
        elif "deploy" in entry.fields:
            self.thirdparty.deploy(name, BUILD / "staging")
        return self.thirdparty.fingerprint(name)

    def _recipe(self, name: str, recipe, inputs: list[str]) -> str:
        wanted = self._input_digest(recipe, inputs)
        record = self.state / f"{name}.json"
        with contextlib.suppress(OSError, ValueError, KeyError):
            known = json.loads(record.read_text())
            if known["input"] == wanted and self._output_digest(recipe) == known["output"]:
                if not all((pathlib.Path(recipe.getVar("DEPLOY_DIR_IMAGE")) / name).exists() for name in self._deployed(recipe)):
                    self._publish(recipe)
                return known["output"]
        record.unlink(missing_ok=True)
        start = time.monotonic()
        self._run_tasks(name, recipe)
        self._publish(recipe)
        output = self._output_digest(recipe)
        self.state.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps({"input": wanted, "output": output}))
        self.ran.append(name)
        say(f"{name}: done in {time.monotonic() - start:.1f} s")
        return output

    @staticmethod
    def _deployed(recipe) -> list[str]:
        """Names of what the recipe's do_deploy made."""
        made = recipe.getVar("DEPLOYDIR")
        return sorted(os.listdir(made)) if os.path.isdir(made) else []

    def _publish(self, recipe) -> None:
        """Lay what do_deploy made into DEPLOY_DIR_IMAGE, as OE-core's deploy class does."""
        for name in self._deployed(recipe):
            entry = pathlib.Path(recipe.getVar("DEPLOYDIR")) / name
            target = pathlib.Path(recipe.getVar("DEPLOY_DIR_IMAGE")) / name
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(entry, target, symlinks=True) if entry.is_dir() else shutil.copy2(entry, target)

    def _input_digest(self, recipe, inputs: list[str]) -> str:
        digest = hashlib.sha256(self.code.encode())
        for line in sorted(inputs):
            digest.update(line.encode() + b"\n")
        files = {pathlib.Path(file) for kind in ("__depends", "__base_depends") for file, _ in recipe.getVar(kind, False) or []}
        for path in sorted(files):
            digest.update(f"{path}\0{digest_file(path)}\n".encode())
        for path in sorted(self._sources(recipe)):
            digest.update(f"{path}\0{digest_tree(path)}\n".encode())
        if recipe.getVar("MESH_CRATE"):
            digest.update(self._rust_digest().encode())
        if recipe.getVar("IMAGE_INSTALL"):
            digest.update(f"{recipe.getVar('SOURCE_DATE_EPOCH')} {recipe.getVar('P2PMESH_VERSION')}".encode())
        return digest.hexdigest()

    def _rust_digest(self) -> str:
        """Toolchain, flags and cargo arguments of the cross build."""
        if self._rust is None:
            chain = rust.toolchain()
            environment, arguments = rust.cross(chain)
            flags = sorted((name, value) for name, value in environment.items() if name.endswith("RUSTFLAGS"))
            self._rust = repr((chain.version, flags, arguments))
        return self._rust

    def _sources(self, recipe) -> list[pathlib.Path]:
        if recipe.getVar("MESH_CRATE"):
            # SRC_URI names the whole workspace, as cargo wants it; the binary is made of a part.
            if self._workspace is None:
                self._workspace = crates.Workspace()
            found = self._workspace.folders(recipe.getVar("MESH_CRATE"))
        else:
            found = [place for _, place in sources.entries(recipe)]
        tasks = [*meta.tasks(recipe), *(f"do_image_{kind}" for kind in (recipe.getVar("IMAGE_FSTYPES") or "").split())]
        for task in tasks:
            for word in (recipe.getVarFlag(task, "file-checksums") or "").split():
                found.append(pathlib.Path(word.rpartition(":")[0]))
        return found

    def _output_digest(self, recipe) -> str:
        if recipe.getVar("IMAGE_INSTALL"):
            out = digest_tree(pathlib.Path(recipe.getVar("IMAGE_ROOTFS")))
            if "p2pcard" in (recipe.getVar("IMAGE_FSTYPES") or ""):
                sums = pathlib.Path(recipe.getVar("P2PMESH_OUT")) / "SHA256SUMS"
                out += digest_file(sums)
                complete = sums.exists() and all((sums.parent / line.split()[1]).exists() for line in sums.read_text().splitlines())
                out += "complete" if complete else ""
            return out
        deployed = pathlib.Path(recipe.getVar("DEPLOYDIR"))
        return digest_tree(pathlib.Path(recipe.getVar("D"))) + (digest_tree(deployed) if deployed.is_dir() else "")

    def _run_tasks(self, name: str, recipe) -> None:
        recipe.setVar("P2PMESH_CRATES", " ".join(crates.packages(self.metadata)))
        temp = pathlib.Path(recipe.getVar("T"))
        temp.mkdir(parents=True, exist_ok=True)
        for task in meta.tasks(recipe):
            if recipe.getVarFlag(task, "noexec") or task == "do_build":
                continue
            for variable in ("B", "S"):
                pathlib.Path(recipe.getVar(variable)).mkdir(parents=True, exist_ok=True) if task != "do_unpack" else None
            log = temp / f"log.{task}"
            try:
                quiet = not recipe.getVar("MESH_CRATE") or task != "do_compile"
                with _output_to(log) if quiet else contextlib.nullcontext():
                    for before in (recipe.getVarFlag(task, "prefuncs") or "").split():
                        bb.build.exec_func(before, recipe)
                    bb.build.exec_func(task, recipe)
            except BuildError as error:
                raise BuildError(f"{name}: {task}: {error}") from error
            except Exception as error:   # whatever a recipe's own Python raises is that recipe's error
                ours = _build_error(error)
                if ours:
                    raise BuildError(f"{name}: {task}: {ours}") from error
                place = meta.where(recipe, task) or recipe.getVar("FILE")
                raise BuildError(f"{place}: {name}: {task} failed: {_reason(error)}\n{_tail(log)}\n  whole log: {log}") from error


def _build_error(error: BaseException | None) -> BuildError | None:
    """The BuildError inside what BitBake made of it."""
    while error is not None and not isinstance(error, BuildError):
        error = error.__cause__ or error.__context__
    return error


def _reason(error: Exception) -> str:
    return getattr(error, "msg", None) or f"{type(error).__name__}: {error}".split("\n", 1)[0]


def _tail(log: pathlib.Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join("  | " + line for line in lines[-15:])


@contextlib.contextmanager
def _output_to(log: pathlib.Path):
    """Send this process's and its children's output to `log`."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with open(log, "w", encoding="utf-8") as handle:
        os.dup2(handle.fileno(), 1)
        os.dup2(handle.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(kept[0], 1)
            os.dup2(kept[1], 2)
            os.close(kept[0])
            os.close(kept[1])


def source_epoch() -> str:
    """SOURCE_DATE_EPOCH, else the time of the last commit."""
    chosen = os.environ.get("SOURCE_DATE_EPOCH")
    if chosen:
        return chosen
    found = subprocess.run(["git", "-C", str(TREE), "log", "-1", "--format=%ct"], check=False, capture_output=True, text=True)
    if found.returncode == 0 and found.stdout.strip():
        return found.stdout.strip()
    say("NOTE: not a git checkout: files in the image carry the time 2025-01-01 (set SOURCE_DATE_EPOCH to choose)")
    return "1735689600"


def settings() -> dict[str, str]:
    """What the machine, not the metadata, decides."""
    found = {"P2PMESH_PATH": os.environ["PATH"], "SOURCE_DATE_EPOCH": source_epoch(), "P2PMESH_RUST_TARGET": rust.TARGET,
             "HOME": os.environ.get("HOME", "/")}
    if os.environ.get("P2PMESH_VERSION"):
        found["P2PMESH_VERSION"] = os.environ["P2PMESH_VERSION"]
    return found


def publish_binaries(runner: Runner) -> None:
    """The static arm64 binaries, for people and tests, in build/deploy/bin."""
    place = BUILD / "deploy/bin"
    place.mkdir(parents=True, exist_ok=True)
    for recipe in runner.metadata.recipes.values():
        crate = recipe.getVar("MESH_CRATE")
        if crate and recipe.getVar("PN") in runner.done:
            built = pathlib.Path(recipe.getVar("CARGO_TARGET_DIR")) / recipe.getVar("CARGO_TARGET_SUBDIR") / crate
            target = place / crate
            if digest_file(target) != digest_file(built):
                target.unlink(missing_ok=True)
                target.write_bytes(built.read_bytes())
                target.chmod(0o755)


TIMES = BUILD / "state/times.json"


def _times() -> dict[str, float]:
    try:
        return json.loads(TIMES.read_text())
    except (OSError, ValueError):
        return {}


def _note_time(runner: Runner, seconds: float) -> None:
    """Keep how long this kind of build took, for `./build.sh bench image`."""
    recipes = [name for name in runner.done if runner.metadata.recipe_for(name) is not None]
    if "p2pmesh-image" not in recipes:
        return
    everything = "every recipe, crates kept" if runner.had_crates else "from nothing (downloads not counted)"
    kind = {0: "nothing changed", 2: "one recipe changed", len(recipes): everything}.get(len(runner.ran))
    if kind:
        TIMES.write_text(json.dumps({**_times(), kind: round(seconds, 1)}))


def _manifest_path(recipe) -> pathlib.Path:
    """Beside the image and named like it; an image that makes no card has only a name."""
    version = recipe.getVar("P2PMESH_VERSION")
    name = f"p2pmesh-{recipe.getVar('MACHINE')}-{version}" if version else recipe.getVar("PN")
    return BUILD / f"deploy/{name}.manifest.json"


def main() -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("targets", nargs="*", default=["p2pmesh-image"], help="recipes to build (default: p2pmesh-image)")
    parser.add_argument("--times", action="store_true", help="print how long the last builds of each kind took, build nothing")
    parser.add_argument("--graph", action="store_true", help="print what needs what, build nothing")
    chosen = parser.parse_args()
    if chosen.times:
        for kind, seconds in sorted(_times().items(), key=lambda row: -row[1]):
            print(f"  build, {kind:38} {seconds:8.1f} s")
        return 0
    start = time.monotonic()
    try:
        with locked(BUILD / "lock"):
            data = meta.Metadata(settings())
            runner = Runner(data, ThirdParty(BUILD / "state/thirdparty.json"), BUILD / "state")
            if chosen.graph:
                for name, recipe in sorted(data.recipes.items()):
                    print(name, "<-", " ".join(dict.fromkeys(needed for needed, _ in runner.needs(recipe))))
                return 0
            for target in chosen.targets:
                runner.build(target)
            publish_binaries(runner)
            for target in chosen.targets:
                recipe = data.recipe_for(target)
                if recipe.getVar("IMAGE_INSTALL"):
                    manifest.write(runner, recipe, _manifest_path(recipe))
    except BuildError as error:
        print(f"build: {error}", file=sys.stderr)
        return 1
    _note_time(runner, time.monotonic() - start)
    built = ", ".join(runner.ran) or "nothing to do"
    say(f"built in {time.monotonic() - start:.1f} s: {built}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
