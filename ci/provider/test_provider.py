"""The provider's own tests: mistakes in recipes are told with file and line; only what changed is built again."""

import os
import pathlib
import shutil
import sys
import tempfile
import textwrap
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "setup")]

import bitbake   # noqa: E402

try:
    import bb   # noqa: F401
except ImportError:
    # Run with the interpreter that has BitBake's library.
    os.execv(str(bitbake.python()), [str(bitbake.python()), "-m", "unittest", *sys.argv[1:]])

import build        # noqa: E402
import elf          # noqa: E402
import metadata     # noqa: E402
import thirdparty   # noqa: E402
import rootfs       # noqa: E402
from common import BuildError   # noqa: E402

build.say = rootfs.say = lambda _message: None


class FakeThirdParty:
    """No downloads: every name of the table is there, empty."""

    def __init__(self, names=()):
        self.table = {name: thirdparty.Entry(name, 1, {"note": "for the test"}) for name in names}
        self.applets = []
        self.laid = []

    def fingerprint(self, name):
        return name

    def lay(self, name, put):
        self.laid.append(name)


class Tree(unittest.TestCase):
    """A small tree with a layer of its own."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.layer = self.folder / "meta-p2pmesh"
        shutil.copytree(metadata.LAYER, self.layer, ignore=shutil.ignore_patterns("recipes-*"))
        (self.folder / "recipes-mesh").mkdir()

    def recipe(self, name, text, version="1.0"):
        path = self.folder / "recipes-mesh" / name / f"{name}_{version}.bb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def parse(self):
        return metadata.Metadata({"P2PMESH_PATH": os.environ["PATH"], "SOURCE_DATE_EPOCH": "1", "P2PMESH_RUST_TARGET": "t", "HOME": "/"},
                                 tree=self.folder, layer=self.layer)

    def runner(self, third=None):
        return build.Runner(self.parse(), third or FakeThirdParty(), self.folder / "state")

    def wrong(self, pattern, action=None):
        with self.assertRaisesRegex(BuildError, pattern):
            (action or self.parse)()


GOOD = """\
    SUMMARY = "A recipe"
    LICENSE = "MIT"
    SRC_URI = "file://hello"
    S = "${UNPACKDIR}"
    do_install() {
        install -d ${D}${bindir}
        install -m 0755 ${S}/hello ${D}${bindir}/hello
    }
    """


class Mistakes(Tree):
    """Each is an error that names the recipe's file and the line."""

    def test_syntax(self):
        self.recipe("broken", 'LICENSE = "MIT"\nthis is no recipe\n')
        self.wrong(r"broken_1\.0\.bb:2: ")

    def test_unknown_class(self):
        self.recipe("broken", 'LICENSE = "MIT"\n\ninherit no-such-class\n')
        self.wrong(r"broken_1\.0\.bb:3: .*no-such-class")

    def test_no_licence(self):
        self.recipe("broken", 'SUMMARY = "x"\n')
        self.wrong(r"broken_1\.0\.bb: .*LICENSE")

    def test_unknown_variable_in_a_path(self):
        self.recipe("broken", 'LICENSE = "MIT"\n\nS = "${NOWHERE}/src"\n')
        self.wrong(r"broken_1\.0\.bb:3: unknown variable \$\{NOWHERE\} in S")

    def test_unknown_variable_in_a_task(self):
        self.recipe("broken", 'LICENSE = "MIT"\ndo_install() {\n    install -d ${D}\n    install -d ${D}${bindri}\n}\n')
        self.wrong(r"broken_1\.0\.bb:4: unknown variable \$\{bindri\} in do_install")

    def test_unknown_variable_in_a_function_that_a_task_calls(self):
        self.recipe("broken", 'LICENSE = "MIT"\nhelper() {\n    echo ${TYPO}\n}\ndo_install() {\n    helper\n}\n')
        self.wrong(r"broken_1\.0\.bb:3: unknown variable \$\{TYPO\} in helper")

    def test_variables_of_the_shell_are_not_mistakes(self):
        self.recipe("fine", 'LICENSE = "MIT"\ndo_install() {\n'
                    '    for f in a b; do echo ${f} ${f%x}; done\n    local_one=1\n    echo ${local_one}\n}\n')
        self.parse()

    def test_bad_python_expansion(self):
        self.recipe("broken", 'LICENSE = "MIT"\nSUMMARY = "${@1/0}"\n')
        self.wrong(r"broken_1\.0\.bb")

    def test_source_that_is_not_there(self):
        self.recipe("broken", GOOD)
        self.wrong(r"broken_1\.0\.bb:3: file://hello .* is in none of", lambda: self.runner().build("broken"))

    def test_source_that_would_need_the_network(self):
        self.recipe("broken", 'LICENSE = "MIT"\nSRC_URI = "git://example.org/x"\n')
        self.wrong(r"broken_1\.0\.bb:2: git://example\.org/x", lambda: self.runner().build("broken"))

    def test_unknown_dependency(self):
        self.recipe("broken", 'LICENSE = "MIT"\n\nDEPENDS = "no-such-thing"\n')
        self.wrong(r"broken_1\.0\.bb:3: no-such-thing is neither a recipe nor in", lambda: self.runner().build("broken"))

    def test_unknown_package_in_the_image(self):
        self.recipe("image", 'LICENSE = "MIT"\nIMAGE_INSTALL = "one"\nIMAGE_INSTALL += "two"\ninherit core-image\n')
        self.recipe("one", 'LICENSE = "MIT"\n')
        self.wrong(r"image_1\.0\.bb:3: two is neither", lambda: self.runner().build("image"))

    def test_unknown_run_time_dependency(self):
        self.recipe("image", 'LICENSE = "MIT"\nIMAGE_INSTALL = "one"\ninherit core-image\n')
        self.recipe("one", 'LICENSE = "MIT"\nRDEPENDS:${PN} = "two"\n')
        self.wrong(r"one_1\.0\.bb:2: two is neither", lambda: self.runner().build("image"))

    def test_dependency_cycle(self):
        self.recipe("one", 'LICENSE = "MIT"\nDEPENDS = "two"\n')
        self.recipe("two", 'LICENSE = "MIT"\nDEPENDS = "one"\n')
        self.wrong(r"dependency cycle: one -> two -> one", lambda: self.runner().build("one"))

    def test_task_that_fails_shows_its_output(self):
        self.recipe("broken", 'LICENSE = "MIT"\ndo_compile() {\n    echo what went wrong\n    false\n}\n')
        self.wrong(r"(?s)broken_1\.0\.bb:\d+: broken: do_compile failed.*what went wrong.*whole log", lambda: self.runner().build("broken"))

    def test_two_recipes_of_one_name(self):
        self.recipe("same", 'LICENSE = "MIT"\n')
        self.recipe("same", 'LICENSE = "MIT"\n', version="2.0")
        self.wrong(r"same_2\.0\.bb: a recipe named same is in .*same_1\.0\.bb")

    def test_two_packages_that_differ_about_a_file(self):
        for name in ("one", "two"):
            self.recipe(name, f'LICENSE = "MIT"\ndo_install() {{\n    echo {name} > ${{D}}/file\n}}\n')
        self.recipe("image", 'LICENSE = "MIT"\nIMAGE_INSTALL = "one two"\ninherit core-image\n')
        self.wrong(r"two and one both bring /file, and they differ", lambda: self.runner().build("image"))


class Language(Tree):
    """What BitBake's library gives: overrides, appends, classes and shell functions."""

    def installed(self, name, place):
        return (self.folder / "build/work" / name / "image" / place).read_text()

    def test_appends_and_overrides(self):
        self.recipe("one", """\
            LICENSE = "MIT"
            WORD = "plain"
            WORD:append = " more"
            WORD:rpi-arm64 = "for this machine"
            do_install() {
                echo "${WORD}" > ${D}/word
            }
            do_install:append() {
                echo "${PN} ${PV}" > ${D}/name
            }
            """)
        self.runner().build("one")
        self.assertEqual(self.installed("one", "word"), "for this machine more\n")
        self.assertEqual(self.installed("one", "name"), "one 1.0\n")

    def test_python_tasks(self):
        self.recipe("one", """\
            LICENSE = "MIT"
            python do_install() {
                with open(d.getVar("D") + "/made", "w") as handle:
                    handle.write(d.expand("${PN}"))
            }
            """)
        self.runner().build("one")
        self.assertEqual(self.installed("one", "made"), "one")

    def test_image_holds_what_its_packages_need(self):
        self.recipe("image", 'LICENSE = "MIT"\nIMAGE_INSTALL = "one third"\ninherit core-image\n')
        self.recipe("one", 'LICENSE = "MIT"\nRDEPENDS:${PN} = "two"\ndo_install() {\n    echo 1 > ${D}/one\n}\n')
        self.recipe("two", 'LICENSE = "MIT"\ndo_install() {\n    echo 2 > ${D}/two\n}\n')
        third = FakeThirdParty(["third"])
        runner = self.runner(third)
        runner.build("image")
        root = self.folder / "build/work/image/rootfs"
        self.assertEqual(sorted(path.name for path in root.iterdir()), ["one", "two"])
        self.assertEqual(third.laid, ["third"])


class Incremental(Tree):
    """Only what changed is built again, and only what its result changes."""

    def setUp(self):
        super().setUp()
        self.source = self.recipe("one", GOOD).parent / "files/hello"
        self.source.parent.mkdir()
        self.source.write_text("#!/bin/sh\n")
        self.recipe("two", 'LICENSE = "MIT"\nDEPENDS = "one"\ndo_install() {\n    echo two > ${D}/two\n}\n')
        self.recipe("other", 'LICENSE = "MIT"\ndo_install() {\n    echo other > ${D}/other\n}\n')
        self.recipe("image", 'LICENSE = "MIT"\nIMAGE_INSTALL = "one two other"\ninherit core-image\n')
        self.assertEqual(self.build(), ["one", "two", "other", "image"])

    def build(self):
        runner = self.runner()
        runner.build("image")
        return runner.ran

    def test_nothing_changed(self):
        self.assertEqual(self.build(), [])

    def test_a_source_changed(self):
        self.source.write_text("#!/bin/sh\necho hello\n")
        self.assertEqual(self.build(), ["one", "two", "image"])
        self.assertEqual(self.build(), [])

    def test_a_mode_changed(self):
        self.source.chmod(0o755)
        self.assertEqual(self.build(), ["one"], "the result has the same bytes: it stops there")

    def test_a_recipe_changed_without_effect_stops_there(self):
        path = self.folder / "recipes-mesh/one/one_1.0.bb"
        path.write_text(path.read_text() + "# a comment\n")
        self.assertEqual(self.build(), ["one"])

    def test_a_result_that_was_removed_is_made_again(self):
        shutil.rmtree(self.folder / "build/work/other/image")
        self.assertEqual(self.build(), ["other"])

    def test_the_list_of_the_image_changed(self):
        path = self.folder / "recipes-mesh/image/image_1.0.bb"
        path.write_text(path.read_text().replace("one two other", "one two"))
        self.assertEqual(self.build(), ["image"])
        self.assertFalse((self.folder / "build/work/image/rootfs/other").exists())

    def test_a_failed_task_runs_again(self):
        path = self.folder / "recipes-mesh/other/other_1.0.bb"
        good = path.read_text()
        path.write_text(good.replace("echo other", "false"))
        with self.assertRaises(BuildError):
            self.build()
        path.write_text(good)
        self.assertIn("other", self.build())


class Table(unittest.TestCase):
    """packages.ini and the choice of files."""

    def table(self, text):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "packages.ini")
            path.write_text(textwrap.dedent(text))
            return thirdparty.read_table(path)

    def test_the_real_table_reads(self):
        self.assertIn("busybox", thirdparty.read_table())

    def test_unknown_key(self):
        with self.assertRaisesRegex(BuildError, r"packages\.ini:2: \[x\] has an unknown key 'fils'"):
            self.table("\n[x]\ndebian = x\nfils = y\n")

    def test_entry_that_says_nothing(self):
        with self.assertRaisesRegex(BuildError, r"packages\.ini:1: \[x\] needs one of"):
            self.table("[x]\nfiles = y\n")

    def test_names_twice(self):
        with self.assertRaisesRegex(BuildError, "already exists"):
            self.table("[x]\ntool = a\n[x]\ntool = b\n")

    def test_every_name_of_the_image_recipe_is_known(self):
        data = metadata.Metadata(build.settings())
        runner = build.Runner(data, FakeThirdParty(thirdparty.read_table()), pathlib.Path("/nonexistent"))
        self.assertIn("mesh-router", runner.packages(data.recipe_for("p2pmesh-image")))
        for recipe in data.recipes.values():
            runner.needs(recipe)

    def test_elf_of_this_python_names_its_loader(self):
        found = elf.needed(pathlib.Path(os.path.realpath(sys.executable)))
        self.assertIn("ld-linux", found[1])
        self.assertTrue(any(name.startswith("libc.so") for name in found[0]))

    def test_a_script_is_no_elf(self):
        self.assertIsNone(elf.needed(pathlib.Path(__file__)))


if __name__ == "__main__":
    unittest.main()
