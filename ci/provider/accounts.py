"""Users and groups of the image, from the recipes' USERADD_PARAM and GROUPADD_PARAM (OE's useradd class)."""

from __future__ import annotations

import argparse
import os
import pathlib
import shlex

from common import BuildError
from metadata import where


def _parser(*options: tuple) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("-r", "--system", action="store_true")
    for names, settings in options:
        parser.add_argument(*names, **settings)
    parser.add_argument("name")
    return parser


GROUP = _parser((("-g", "--gid"), {"type": int, "required": True}))
USER = _parser((("-u", "--uid"), {"type": int, "required": True}), (("-g", "--gid"), {"required": True}),
               (("-G", "--groups"), {"default": ""}), (("-d", "--home-dir"), {"default": "/nonexistent"}),
               (("-s", "--shell"), {"default": "/sbin/nologin"}), (("-c", "--comment"), {"default": ""}),
               (("-M", "--no-create-home"), {"action": "store_true"}), (("-N", "--no-user-group"), {"action": "store_true"}))


def _parse(parser, recipe, variable: str):
    """One namespace per `;`-separated command line; numbers must be given, so that every build gives the same ones."""
    for command in (recipe.getVar(variable) or "").split(";"):
        if not command.strip():
            continue
        try:
            parsed, rest = parser.parse_known_args(shlex.split(command))
        except (argparse.ArgumentError, SystemExit, ValueError) as error:
            raise BuildError(f"{where(recipe, variable)}: {variable}: {error}: {command.strip()}") from error
        if rest:
            raise BuildError(f"{where(recipe, variable)}: {variable}: option {rest[0]} is not known here")
        yield parsed


class _Table:
    """An /etc file of colon-separated lines, keyed by the first field."""

    def __init__(self, root: pathlib.Path, name: str, mode: int):
        self.path, self.mode = root / "etc" / name, mode
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.rows = [line.split(":") for line in lines if line]

    def get(self, name: str) -> list[str] | None:
        return next((row for row in self.rows if row[0] == name), None)

    def write(self) -> None:
        if self.rows:
            self.path.write_text("".join(":".join(row) + "\n" for row in self.rows))
            os.chmod(self.path, self.mode)


def add(root: pathlib.Path, recipes: list) -> None:
    """Write the accounts of all `recipes` into etc/passwd, group and shadow below `root`."""
    passwd, group, shadow = _Table(root, "passwd", 0o644), _Table(root, "group", 0o644), _Table(root, "shadow", 0o600)
    changed = False
    for recipe in recipes:
        for package in (recipe.getVar("USERADD_PACKAGES") or "").split():
            for wanted in _parse(GROUP, recipe, f"GROUPADD_PARAM:{package}"):
                changed = True
                if group.get(wanted.name) is None:
                    group.rows.append([wanted.name, "x", str(wanted.gid), ""])
    for recipe in recipes:
        for package in (recipe.getVar("USERADD_PACKAGES") or "").split():
            variable = f"USERADD_PARAM:{package}"
            for wanted in _parse(USER, recipe, variable):
                changed = True
                gid = wanted.gid if wanted.gid.isdigit() else (group.get(wanted.gid) or [None, None, None])[2]
                if gid is None:
                    raise BuildError(f"{where(recipe, variable)}: user {wanted.name}: no group {wanted.gid}")
                if passwd.get(wanted.name) is None:
                    passwd.rows.append([wanted.name, "x", str(wanted.uid), gid, wanted.comment, wanted.home_dir, wanted.shell])
                    shadow.rows.append([wanted.name, "!", "", "", "", "", "", "", ""])
                for name in filter(None, wanted.groups.split(",")):
                    row = group.get(name)
                    if row is None:
                        raise BuildError(f"{where(recipe, variable)}: user {wanted.name}: no group {name}")
                    members = list(filter(None, row[3].split(",")))
                    row[3] = ",".join(members + [wanted.name] * (wanted.name not in members))
    if changed:
        for table in (passwd, group, shadow):
            table.write()
