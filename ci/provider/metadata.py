"""Recipes, read by BitBake's own library: variables, overrides, classes and tasks mean what they mean in OpenEmbedded."""

from __future__ import annotations

import glob
import logging
import os
import pathlib
import re
import sys
import types

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "setup"))

# bb.siggen imports these; they are not in the wheel and nothing here talks to a hash server.
for _name in ("hashserv", "hashserv.client"):
    sys.modules.setdefault(_name, types.ModuleType(_name))

import bb                                      # noqa: E402
import bb.build                                # noqa: E402
import bb.data                                 # noqa: E402
import bb.parse                                # noqa: E402
import bb.siggen                               # noqa: E402
from bb.parse.parse_py import BBHandler        # noqa: E402
from common import TREE, BuildError            # noqa: E402

BITBAKE = os.path.dirname(bb.__file__)
STANDIN = HERE / "standin"
LAYER = TREE / "meta-p2pmesh"
UNEXPANDED = re.compile(r"\$\{([A-Za-z0-9_:.+/-]+)\}")
# Variables of a recipe whose value is a path, a name or a list of them: nothing may stay unexpanded there.
CHECKED = ["SRC_URI", "S", "B", "D", "DEPENDS", "RDEPENDS", "FILES", "LICENSE", "LIC_FILES_CHKSUM", "IMAGE_INSTALL",
           "FILESPATH", "CARGO_MANIFEST_PATH", "IMAGE_FSTYPES", "SUMMARY", "PV", "USERADD_PARAM", "GROUPADD_PARAM"]


class _Collector(logging.Handler):
    """BitBake reports some mistakes only in its log: keep them, with their level."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record):
        self.lines.append(record.getMessage())


class Metadata:
    """All recipes of the layer and of recipes-mesh."""

    def __init__(self, settings: dict[str, str], tree: pathlib.Path = TREE, layer: pathlib.Path = LAYER):
        self.tree = tree
        self.layer = layer
        self.log = _Collector()
        bb.parse.logger.addHandler(self.log)
        logging.getLogger("BitBake").addHandler(self.log)
        logging.getLogger("BitBake").propagate = False
        bb.build.verboseStdoutLogging = False
        self.base = self._configuration(settings)
        self.recipes: dict[str, object] = {}
        self.provides: dict[str, str] = {}
        for path in self._files():
            self._add(path)

    def _configuration(self, settings: dict[str, str]):
        d = bb.data.init()
        d.enableTracking()   # so that mistakes can be shown with file and line
        d.setVar("BBPATH", f"{STANDIN}:{self.layer}")
        d.setVar("TOPDIR", str(self.tree))
        for name, value in settings.items():
            d.setVar(name, value)
        self.log.lines.clear()
        try:
            d.setVar("LAYERDIR", str(self.layer))
            d = bb.parse.handle(str(self.layer / "conf/layer.conf"), d, True)
            d.setVar("BBFILES_EXPANDED", d.expand(d.getVar("BBFILES")))
            d.setVar("BBPATH", f"{STANDIN}:{self.layer}")
            d.delVar("LAYERDIR")
            d = bb.parse.handle(str(STANDIN / "conf/bitbake.conf"), d, True)
            d = bb.parse.handle(str(self.layer / "conf/distro/p2pmesh.conf"), d, True)
            d.setVar("__bbclasstype", "global")
            BBHandler.inherit("base", "base", 0, d)
        except bb.parse.ParseError as error:
            raise BuildError(_where(error)) from error
        d.setVar("__bbclasstype", "recipe")
        bb.parse.siggen = bb.siggen.init(d)
        return d

    def _files(self) -> list[str]:
        patterns = self.base.getVar("BBFILES_EXPANDED").split()
        found = {os.path.realpath(path) for pattern in patterns for path in glob.glob(pattern) if path.endswith(".bb")}
        found |= {str(path) for path in (STANDIN / "recipes").glob("*.bb")}
        return sorted(found)

    def _add(self, path: str) -> None:
        self.log.lines.clear()
        # Parsed statements of a .bb file are not cached by BitBake, but those of classes are: one copy each is enough.
        try:
            recipe = bb.parse.handle(path, bb.data.createCopy(self.base))[""]
            name = recipe.getVar("PN")
            self.check(recipe, path)
        except BuildError:
            raise
        except bb.parse.SkipRecipe:
            return
        except bb.parse.ParseError as error:
            raise BuildError(_where(error)) from error
        except bb.data_smart.ExpansionError as error:
            raise BuildError(f"{path}: {error}") from error
        except (SyntaxError, ValueError, OSError) as error:
            raise BuildError(f"{path}: {error}") from error
        if name in self.recipes:
            raise BuildError(f"{path}: a recipe named {name} is in {self.recipes[name].getVar('FILE')} already")
        self.recipes[name] = recipe
        for virtual in [name, *(recipe.getVar("PROVIDES") or "").split(), *(recipe.getVar("RPROVIDES:" + name) or "").split()]:
            self.provides[virtual] = name

    # -- mistakes ---------------------------------------------------------------------------------------------------

    def check(self, recipe, path: str) -> None:
        """Mistakes BitBake lets pass: a missing licence, a variable nobody sets."""
        name = recipe.getVar("PN")
        if not recipe.getVar("LICENSE"):
            raise BuildError(f"{path}: recipe {name} has no LICENSE")
        for variable in CHECKED:
            for key in (variable, f"{variable}:{name}"):
                value = recipe.getVar(key)
                unknown = UNEXPANDED.search(value) if value else None
                if unknown:
                    raise BuildError(f"{where(recipe, key, unknown[0]) or path}: unknown variable {unknown[0]} in {key}")
        for task in tasks(recipe):
            self.check_function(recipe, task, path, set())

    def check_function(self, recipe, function: str, path: str, seen: set[str]) -> None:
        """A shell function may use only variables that are set by metadata or in the function itself."""
        if function in seen or not recipe.getVar(function, False) or recipe.getVarFlag(function, "python", False):
            return
        seen.add(function)
        body = recipe.getVar(function)
        for called in re.findall(r"^\s*([a-z][\w-]*)\b", body, re.M):
            if recipe.getVarFlag(called, "func", False):
                self.check_function(recipe, called, path, seen)
        for match in UNEXPANDED.finditer(body):
            name = match[1]
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                continue   # ${name%suffix} and the like are the shell's
            set_here = rf"(^|[\s;(]){name}=|\bfor\s+{name}\b|\bread\s+(-\w+\s+)*([a-z_]+\s+)*{name}\b"
            if re.search(set_here, body, re.M) or name in os.environ and name in ("HOME", "PATH", "USER"):
                continue
            raise BuildError(f"{where(recipe, function, match[0]) or path}: unknown variable {match[0]} in {function}")

    # -- looking things up --------------------------------------------------------------------------------------------

    def recipe_for(self, name: str):
        """The recipe that provides `name`, or None."""
        found = self.provides.get(name)
        return self.recipes[found] if found else None


def tasks(recipe) -> list[str]:
    """The recipe's tasks in the order they run."""
    known = [task for task in (recipe.getVar("__BBTASKS", False) or [])]
    order: list[str] = []

    def visit(task: str) -> None:
        if task in order or task not in known:
            return
        for needed in recipe.getVarFlag(task, "deps", False) or []:
            visit(needed)
        order.append(task)

    for task in known:
        visit(task)
    return order


def where(recipe, variable: str, text: str = "") -> str:
    """file:line of the place that set `variable` (with `text` in it, if given), as far as BitBake remembers it."""
    file, line = recipe.getVarFlag(variable, "filename", False), recipe.getVarFlag(variable, "lineno", False)
    places = []
    if file and os.path.isfile(file) and str(line).isdigit():
        places.append((file, int(line)))
    name = recipe.getVar("PN") or ""
    # BitBake renames RDEPENDS:${PN} to RDEPENDS:name at the end; what the recipe wrote is under the first.
    for key in (variable, variable.replace(f":{name}", ":${PN}")):
        for event in reversed(recipe.varhistory.variable(key)):
            path = event.get("file") or ""
            if os.path.isfile(path) and event.get("line") and "flag" not in event and not path.startswith(BITBAKE):
                places.append((path, int(event["line"])))
    for file, line in places:
        if not text or not os.path.isfile(file):
            return f"{_short(file)}:{line}"
        lines = pathlib.Path(file).read_text(errors="replace").splitlines()
        # An assignment's line is its last one, a function's its first: look around it, nearest first.
        for number in sorted(range(max(1, line - 60), min(len(lines), line + 200) + 1), key=lambda n: abs(n - line)):
            if text in lines[number - 1]:
                return f"{_short(file)}:{number}"
    return f"{_short(places[0][0])}:{places[0][1]}" if places else ""


def _short(path: str) -> str:
    try:
        return str(pathlib.Path(path).relative_to(TREE))
    except ValueError:
        return path


def _where(error) -> str:
    """A BitBake parse error as file:line: message."""
    file = getattr(error, "filename", "") or ""
    line = getattr(error, "lineno", 0)
    message = getattr(error, "msg", None) or str(error)
    return f"{_short(file)}:{line}: {message}" if file else str(error)
