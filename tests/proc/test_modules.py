"""Modules that carriers require: put into the bundle when it is signed, and found nowhere else."""
import json
import os
import shutil
import subprocess

import pytest

from fleet import BUILD, TOS

LIB = os.path.join(BUILD, "carriers/lib")


@pytest.fixture
def home(tmp_path):
    env = dict(os.environ, TOS_HOME=str(tmp_path / "h"), HOME=str(tmp_path))

    class Home:
        path = tmp_path

        def run(self, *args):
            return subprocess.run([TOS, *map(str, args)], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60)

        def tos(self, *args):
            r = self.run(*args)
            assert r.returncode == 0, r.stdout + r.stderr
            return r.stdout

    h = Home()
    h.tos("init")
    return h


def test_a_bundle_holds_what_its_code_requires(home):
    (home.path / "lib").mkdir()
    (home.path / "lib/names.lua").write_text("local waves = require 'waves' return { sizes = waves.sizes('1,50%', 10) }\n")
    (home.path / "c.lua").write_text(
        "local names = require 'lib.names'\nfunction begin(self) tos.briefcase.RESULTS = { names.sizes } end\n")
    home.tos("build", "c.lua", "-o", "c.bundle")
    v = json.loads(home.tos("verify", "c.bundle", "--json"))
    assert sorted(v["files"]) == ["c.lua", "lib/names.lua", "waves.lua"]
    assert v["libraries"] == {"waves.lua": "the system's library"}
    said = home.tos("verify", "c.bundle")
    assert "lib/names.lua (" in said and ", the system's library)" in said
    # the file alone is enough from here on
    shutil.rmtree(home.path / "lib")
    assert home.run("launch", "c.lua", "--local").returncode != 0
    o = json.loads(home.tos("launch", "c.bundle", "--local", "--json"))
    assert o["state"] == "finished" and o["briefcase"]["RESULTS"] == [[1, 5]], o


def test_libraries_of_the_system_are_not_shadowed_silently(home):
    (home.path / "c.lua").write_text("local waves = require 'waves'\nfunction begin(self) end\n")
    (home.path / "waves.lua").write_text("return {}\n")
    r = home.run("build", "c.lua")
    assert r.returncode == 1 and r.stderr.startswith("tos build: c.lua:1: ./waves.lua would take the place of the system's"), \
        r.stderr
    assert not (home.path / "c.bundle").exists()
    shutil.copy(os.path.join(LIB, "waves.lua"), home.path / "waves.lua")  # the same file is no other library
    home.tos("build", "c.lua")
    # a bundle that somebody made otherwise, with another waves.lua: to be seen
    (home.path / "lib").mkdir()
    (home.path / "lib/waves.lua").write_text("return {}\n")
    (home.path / "waves.lua").unlink()
    (home.path / "d.lua").write_text("require 'lib.waves'\nfunction begin(self) end\n")
    home.tos("build", "d.lua")
    assert json.loads(home.tos("verify", "d.bundle", "--json"))["libraries"] == {}
    (home.path / "string.lua").write_text("return {}\n")
    (home.path / "c.lua").write_text("require 'string'\nfunction begin(self) end\n")
    r = home.run("build", "c.lua")
    assert r.returncode == 1 and "is a standard library" in r.stderr, r.stderr


def test_a_module_that_no_literal_names_is_named_at_the_launch(home):
    (home.path / "one.lua").write_text("return 'the first'\n")
    (home.path / "c.lua").write_text("function begin(self) print(require('o' .. 'ne')) end\n")
    r = home.run("launch", "c.lua", "--local")
    assert r.returncode == 1 and "the carrier's code has no file one.lua" in r.stdout + r.stderr
    r = home.run("launch", "c.lua", "--module", "one", "--local")
    assert r.returncode == 0 and "the first" in r.stderr, r.stderr
    r = home.run("launch", "c.lua", "--module", "two", "--local")
    assert r.returncode == 1 and "there is no module two" in r.stderr
    # a line of Lua lies in no folder: it has the system's libraries
    r = home.run("launch", "-e", "return #require('waves').sizes('1,2,3', 9)", "--local", "--json")
    assert r.returncode == 0 and json.loads(r.stdout)["briefcase"]["RESULTS"][0]["value"] == 3, r.stderr
    r = home.run("launch", "-e", "return require 'one'", "--local")
    assert r.returncode == 1 and "there is no library one of the system" in r.stderr, r.stderr


@pytest.mark.parametrize("source,module,said", [
    ("\nlocal a = require 'lib.none'", None, "c.lua:2: there is no module lib.none"),
    ("require '../c'", None, "c.lua:1: no module can have that name"),
    ("require 'c'", None, "c.lua:1: ./c.lua is the carrier itself"),
    ("require 'lib.bad'", "return 1\nx = = 2\n", "./lib/bad.lua:2:"),
    ("require 'lib.bad'", "\n\nrequire 'lib.worse'\n", "./lib/bad.lua:3: there is no module lib.worse"),
    ("require 'lib.bad'", b"\xff", "./lib/bad.lua is not a text in UTF-8"),
])
def test_a_module_that_cannot_be_is_named_with_its_line(home, source, module, said):
    (home.path / "lib").mkdir()
    if module is not None:
        (home.path / "lib/bad.lua").write_bytes(module if isinstance(module, bytes) else module.encode())
    (home.path / "c.lua").write_text(source + "\nfunction begin(self) end\n")
    r = home.run("build", "c.lua")
    assert r.returncode == 1 and said in r.stderr, r.stderr


def test_an_optional_module_may_be_missing_and_a_cycle_is_an_error_of_the_carrier(home):
    (home.path / "a.lua").write_text("return require 'b'\n")
    (home.path / "b.lua").write_text("return require 'a'\n")
    (home.path / "c.lua").write_text(
        "local ok = pcall(require, 'none')\nfunction begin(self) print(ok, select(2, pcall(require, 'a'))) end\n")
    home.tos("build", "c.lua")
    assert sorted(json.loads(home.tos("verify", "c.bundle", "--json"))["files"]) == ["a.lua", "b.lua", "c.lua"]
    assert 'module "a" requires itself' in home.run("launch", "c.bundle", "--local").stderr
