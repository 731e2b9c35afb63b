"""do_compile of the Cargo recipes, and which folders of the workspace a package's binary is made of."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess

import rust
from common import TREE, BuildError, say

_built: set[tuple[str, ...]] = set()


def packages(metadata) -> list[str]:
    """Every workspace package that a recipe builds: the one list every cargo call gets."""
    return sorted(d.getVar("MESH_CRATE") for d in metadata.recipes.values() if d.getVar("MESH_CRATE"))


def build(d) -> None:
    """One cargo call for all packages, once a run; a package whose binary is not there afterwards is this recipe's error."""
    names = d.getVar("P2PMESH_CRATES").split()
    manifest = os.path.realpath(d.getVar("CARGO_MANIFEST_PATH"))
    target = d.getVar("CARGO_TARGET_DIR")
    key = (manifest, target, *names)
    if key in _built:
        return
    chain = rust.toolchain()
    environment, arguments = rust.cross(chain)
    command = ["cargo", "build", "--release", "--locked", "--manifest-path", manifest, *arguments]
    for name in names:
        command += ["-p", name]
    say(f"cargo: {len(names)} packages for {rust.TARGET} (Rust {chain.version})")
    result = subprocess.run(command, check=False, cwd=pathlib.Path(manifest).parent,
                            env={**os.environ, **environment, "CARGO_TARGET_DIR": target, "CARGO_TERM_PROGRESS_WHEN": "never"})
    if result.returncode != 0:
        raise BuildError("cargo build failed (its messages are above)")
    _built.add(key)


class Workspace:
    """Path dependencies between the workspace's members, from cargo itself."""

    def __init__(self, folder: pathlib.Path = TREE / "crates"):
        text = rust.toolchain().run("cargo", "metadata", "--no-deps", "--format-version", "1", "--offline",
                                    "--manifest-path", str(folder / "Cargo.toml"))
        self.members: dict[str, tuple[pathlib.Path, list[str]]] = {}
        for package in json.loads(text)["packages"]:
            needs = [dep["name"] for dep in package["dependencies"] if dep.get("path") and dep["kind"] != "dev"]
            self.members[package["name"]] = (pathlib.Path(package["manifest_path"]).parent, needs)

    def folders(self, name: str) -> list[pathlib.Path]:
        """The folders of `name` and of all members it is built from."""
        if name not in self.members:
            raise BuildError(f"crates/Cargo.toml has no member {name}")
        seen: list[str] = []
        waiting = [name]
        while waiting:
            here = waiting.pop()
            if here not in seen:
                seen.append(here)
                waiting += [other for other in self.members[here][1] if other in self.members]
        return sorted(self.members[found][0] for found in seen)
