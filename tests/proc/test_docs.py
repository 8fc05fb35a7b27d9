"""What the documents show is what happens: their examples are run, their links followed.

Marks on fenced code blocks:
  ```console   lines that begin with "$ " are commands, the others what they print (both streams, in order). "..."
               stands for anything within a line, or alone for any lines; runs of blanks count as one. A block's
               commands share a shell's environment and folder with those before it in the same document.
  ```lua NAME  is written to that file first, as is ```c NAME. Without a name: compiled if it defines begin.
  ```sh        is not run.
"""
import os
import re
import shutil
import subprocess
import tempfile

import pytest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("TOS_BUILD", "")
CLI = os.path.join(BUILD, "src/cli")
TOS = os.path.join(CLI, "tos")
VM = os.path.join(BUILD, "src/vm/tos-vm")

pytestmark = pytest.mark.skipif(not os.path.exists(TOS), reason="TOS_BUILD names no build with tos")


def documents(*folders):
    for folder in folders:
        for root, dirs, files in os.walk(os.path.join(TOP, folder)):
            dirs.sort()
            for f in sorted(files):
                if f.endswith(".md"):
                    yield os.path.relpath(os.path.join(root, f), TOP)


EVERY = ["README.md", "NEWS.md", "CONTRIBUTING.md", *documents("doc")]
EXAMPLES = ["README.md", *documents("doc/guide")]


def read(path):
    with open(os.path.join(TOP, path)) as f:
        return f.read()


def blocks(text):
    """(line number, mark, content) of each fenced block."""
    out, mark, lines, at = [], None, [], 0
    for number, line in enumerate(text.splitlines(), 1):
        if mark is None and line.startswith("```"):
            mark, lines, at = line[3:].strip(), [], number
        elif mark is not None and line.rstrip() == "```":
            out.append((at, mark, "\n".join(lines) + "\n"))
            mark = None
        elif mark is not None:
            lines.append(line)
    assert mark is None, f"the block of line {at} does not end"
    return out


def commands(block):
    """[(command, [expected line])] of a console block."""
    out = []
    for line in block.splitlines():
        if line.startswith("$ "):
            out.append((line[2:], []))
        else:
            assert out, "a console block begins with a command"
            out[-1][1].append(line)
    return out


def line_matches(want, got):
    want, got = (re.sub(r"[ \t]+", " ", s).strip() for s in (want, got))
    pattern = ".*".join(re.escape(part.strip()) for part in want.split("..."))
    return re.fullmatch(pattern, got) is not None


def output_matches(want, got):
    """Do the lines match, with "..." alone for any number of lines?"""
    if not want:
        return not got
    if want[0].strip() == "...":
        return any(output_matches(want[1:], got[i:]) for i in range(len(got) + 1))
    return bool(got) and line_matches(want[0], got[0]) and output_matches(want[1:], got[1:])


def trim(lines):
    while lines and not lines[-1].strip():
        lines = lines[:-1]
    return lines


class Shell:
    """Commands one after the other that share folder and environment."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="tos-docs.")
        os.chmod(self.dir, 0o755)
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("TOS_") or k == "TOS_SANITIZE"}
        self.env.update(PATH=CLI + ":" + self.env.get("PATH", ""), HOME=self.dir, COLUMNS="120",
                        C_INCLUDE_PATH=os.path.join(TOP, "include"))

    def run(self, command):
        state = os.path.join(self.dir, ".env")
        script = f'{command}\nstatus=$?\nenv -0 >"{state}"\nexit $status\n'
        r = subprocess.run(["bash", "-c", script], cwd=self.dir, env=self.env, stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
        if os.path.exists(state):
            with open(state) as f:
                self.env = dict(item.split("=", 1) for item in f.read().split("\0") if "=" in item)
            os.unlink(state)
        return r.returncode, r.stdout

    def close(self):
        for entry in os.scandir(self.dir):  # a document may use more than one TOS_HOME
            if os.path.exists(os.path.join(entry.path, "domain.conf")):
                subprocess.run([TOS, "down", "--home", entry.path], env=self.env, capture_output=True, timeout=60)
        shutil.rmtree(self.dir, ignore_errors=True)


@pytest.fixture
def shell():
    s = Shell()
    yield s
    s.close()


@pytest.mark.parametrize("path", [p for p in EXAMPLES if "```console" in read(p)])
def test_examples_do_what_is_shown(shell, path):
    if os.environ.get("TOS_SANITIZE") == "1" and re.search(r"^\$ tos run .*-- |tos launch steward", read(path), re.M):
        pytest.skip("a sanitizer build starts no programs")
    for at, mark, content in blocks(read(path)):
        words = mark.split()
        if words[:1] in (["lua"], ["c"]) and len(words) > 1:
            with open(os.path.join(shell.dir, words[1]), "w") as f:
                f.write(content)
        if words[:1] != ["console"]:
            continue
        for command, want in commands(content):
            status, got = shell.run(command)
            lines = got.splitlines()
            assert status == 0 and output_matches(trim(want), trim(lines)), \
                f"{path}:{at}: $ {command}\nexit {status}\n--- shown\n" + "\n".join(want) + "\n--- printed\n" + got


@pytest.mark.parametrize("path", [p for p in EVERY if "```lua" in read(p)])
def test_carriers_in_documents_compile(path, tmp_path):
    for at, mark, content in blocks(read(path)):
        if mark.split()[:1] != ["lua"] or "function begin" not in content or "typo" in mark:
            continue
        file = tmp_path / "carrier.lua"
        file.write_text(content)
        r = subprocess.run([VM, "--check", str(file)], capture_output=True, text=True)
        assert r.returncode == 0, f"{path}:{at}: {r.stdout}{r.stderr}"


def test_the_wildcards_of_this_test_match_what_they_should():
    assert output_matches(["a ... c"], ["a b c"]) and output_matches(["a ... c"], ["a   c"])
    assert not output_matches(["a ... c"], ["a b d"])
    assert output_matches(["..."], []) and output_matches(["x", "...", "z"], ["x", "y", "y", "z"])
    assert not output_matches(["x", "..."], ["y"])
    assert not output_matches([], ["y"])
    assert output_matches(["host0   127.0.0.1:..."], ["host0 127.0.0.1:21212"])


def test_the_demo_ends_with_the_table_and_its_next_lines_work(shell):
    shell.env["TOS_HOME"] = os.path.join(shell.dir, "demo")
    status, got = shell.run(f"{TOP}/tools/demo {BUILD}")
    assert status == 0, got
    for i in range(3):
        assert re.search(rf"^host{i} +\S+ +.*GiB", got, re.M), got
        assert re.search(rf"^ *\d+ +host{i} +started ", got, re.M), got
    if os.environ.get("TOS_SANITIZE") != "1":  # such a build starts no programs
        assert len(re.findall(r"^host[012] +Linux", got.split("# A carrier")[0], re.M)) == 3, got
    late = got.split("# One host is down")[1]  # sent while host1 was not there, and was everywhere nevertheless
    assert re.search(r"^host1 +stopped", late, re.M), got
    assert all(re.search(rf"^ *\d+ +host{i} +started ", late, re.M) for i in range(3)), got
    lines = [line.strip() for line in got.split("paste:")[1].splitlines() if line.startswith("  ")]
    assert lines[0].startswith("export PATH=") and lines[-1].startswith("tos down")
    for line in lines:
        status, said = shell.run(line)
        assert status == 0, f"{line}\n{said}"


def test_the_launcher_in_c_launches_what_the_guide_shows(shell):
    with open(os.path.join(shell.dir, "hello.lua"), "w") as f:
        f.write(read("examples/hello.lua"))
    shell.env["TOS_HOME"] = os.path.join(shell.dir, "t")
    status, got = shell.run(f"tos up -n 3 >/dev/null 2>&1 && {BUILD}/examples/launch && tos wait 1")
    assert status == 0 and got.startswith("host0#1\n"), got
    assert [re.search(rf"^host{i} +{i + 1}$", got, re.M) for i in range(3)].count(None) == 0, got


def test_documents_show_the_example_files_as_they_are():
    for path in ("README.md", "doc/guide/first-carrier.md"):
        shown = [content for _, mark, content in blocks(read(path)) if mark == "lua hello.lua"]
        assert shown == [read("examples/hello.lua")], path
    shown = [content for _, mark, content in blocks(read("doc/guide/first-extension.md")) if mark == "lua greeter.lua"]
    assert shown == [read("examples/greeter.lua")]


def test_the_installed_tree_works_wherever_it_was_put(shell):
    """As make install lays it out, with a prefix that is not the one it was configured for."""
    r = subprocess.run(["meson", "install", "-C", BUILD, "--no-rebuild", "--quiet", "--tags", "runtime,man,devel,doc",
                        "--destdir", os.path.join(shell.dir, "root")], capture_output=True, text=True)
    assert r.returncode == 0, r.stdout + r.stderr
    prefix = next(os.path.dirname(d) for d, _, files in os.walk(os.path.join(shell.dir, "root"))
                  if os.path.basename(d) == "bin" and "tos" in files)
    for path in ("bin/tos", "sbin/tosd", "libexec/tos/tos-kernel", "libexec/tos/tos-vm", "libexec/tos/tos-ext",
                 "lib/tos/extensions/monitor.so", "share/tos/carriers/facts.lua", "lib/systemd/system/tosd@.service",
                 "share/bash-completion/completions/tos", "include/tos/extension.h", "share/doc/tos/architecture.md"):
        assert os.path.exists(os.path.join(prefix, path)), path
    assert not pages() or os.path.exists(os.path.join(prefix, "share/man/man1/tos-launch.1"))
    shell.env["PATH"] = f"{prefix}/bin:" + os.environ.get("PATH", "")
    shell.env["TOS_HOME"] = os.path.join(shell.dir, "t")
    status, got = shell.run("tos up -n 1 && tos launch facts --wait && tos doctor && tos down")
    assert status == 0 and "host0#1 finished" in got, got
    assert f"{prefix}/" in got and BUILD not in got, got
    if os.environ.get("TOS_SANITIZE") != "1":
        a_launcher_builds_on_the_installed_library(shell, prefix)
    # A clean stop loses no numbers.
    status, got = shell.run("tos up >/dev/null 2>&1 && tos launch postman")
    assert status == 0 and re.fullmatch(r"host0#[23]\n", got), got


def a_launcher_builds_on_the_installed_library(shell, prefix):
    """With what was installed and nothing of this tree: headers, libtos.so, tos.pc."""
    pc = next(os.path.join(d, "tos.pc") for d, _, files in os.walk(prefix) if "tos.pc" in files)
    lib = os.path.dirname(os.path.dirname(pc))
    if not (shutil.which("cc") and shutil.which("pkg-config")):
        return
    shutil.copy(os.path.join(TOP, "examples/launch.c"), shell.dir)
    shell.env["PKG_CONFIG_PATH"] = os.path.dirname(pc)
    status, got = shell.run(f"cc -Wall -Werror -o launch launch.c $(pkg-config --define-variable=prefix={prefix} "
                            f"--cflags --libs tos) -Wl,-rpath,{lib}")
    assert status == 0, got
    status, got = shell.run("objdump -p launch | grep NEEDED; objdump -p " + lib + "/libtos.so | grep SONAME")
    assert "libtos.so.0" in got.split("SONAME")[0] and "libtos.so.0" in got.split("SONAME")[1], got
    # it exports what the headers promise, and nothing else
    names = subprocess.run(["nm", "-D", "--defined-only", lib + "/libtos.so"], capture_output=True, text=True).stdout
    have = {line.split()[2].split("@")[0] for line in names.splitlines() if line.split()[1] == "T"}
    want = set()
    for header in ("tos.h", "value.h"):
        text = re.sub(r"/\*.*?\*/", "", read("include/tos/" + header), flags=re.S)
        want |= set(re.findall(r"TOS_API[^;]*?\b(tos_\w+)\(", text))
    assert have == want and len(want) > 40, have ^ want
    with open(os.path.join(shell.dir, "hello.lua"), "w") as f:
        f.write('function begin(self) tos.briefcase:folder("RESULTS"):push { x = 1 } end\n')
    status, got = shell.run("tos up >/dev/null 2>&1 && ./launch hello.lua host0 && ./launch nothing.lua host0; tos down")
    assert "host0#" in got and "launch: not-found" in got, got
    with open(os.path.join(shell.dir, "bad.lua"), "w") as f:
        f.write("function begin(self\n")  # found out by the tos-vm that is installed beside the library
    status, got = shell.run("./launch bad.lua host0")
    assert status and "syntax" in got, got
    if shutil.which("c++"):
        with open(os.path.join(shell.dir, "x.cc"), "w") as f:
            f.write("#include <tos/tos.h>\nint main() { tos_disconnect(nullptr); tos_value_free(tos_int(1)); }\n")
        status, got = shell.run(f"c++ -Wall -Werror -o x x.cc $(pkg-config --define-variable=prefix={prefix} "
                                f"--cflags --libs tos) -Wl,-rpath,{lib} && ./x")
        assert status == 0, got


# ---- links, pages, the tree

def anchors(path):
    out = set()
    for line in re.sub(r"^```.*?^```", "", read(path), flags=re.M | re.S).splitlines():
        if line.startswith("#"):
            title = re.sub(r"[`*]", "", line.lstrip("#").strip().lower())
            out.add(re.sub(r"[^\w\- ]", "", title).replace(" ", "-"))
    return out


@pytest.mark.parametrize("path", EVERY)
def test_links_lead_somewhere(path):
    text = re.sub(r"^```.*?^```", "", read(path), flags=re.M | re.S)
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = os.path.normpath(os.path.join(os.path.dirname(path), file)) if file else path
        assert os.path.exists(os.path.join(TOP, there)), f"{path}: {target}"
        if anchor and there.endswith(".md"):
            assert anchor in anchors(there), f"{path}: {target}"


def subcommands():
    text = subprocess.run([TOS, "--help"], capture_output=True, text=True).stdout.split("Everywhere")[0]
    return re.findall(r"^  ([a-z]+)  ", text, re.M)


def pages():
    folder = os.path.join(BUILD, "doc/man")
    return sorted(os.path.join(folder, f) for f in os.listdir(folder) if re.search(r"\.[178]$", f)) \
        if os.path.isdir(folder) else []


def test_each_subcommand_has_a_manual_page_and_each_page_a_subcommand():
    if not pages():
        pytest.skip("no scdoc, no manual pages")
    names = {os.path.basename(p) for p in pages()}
    assert names == {"tos.1", "tosd.8", "tos-carrier.7"} | {f"tos-{c}.1" for c in subcommands()}


def test_manual_pages_are_well_formed():
    if not shutil.which("mandoc"):
        pytest.skip("no mandoc")
    for page in pages():
        r = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", page], capture_output=True, text=True)
        # scdoc puts a paragraph behind each heading, which mandoc calls superfluous.
        said = [s for s in (r.stdout + r.stderr).splitlines() if "skipping paragraph macro" not in s]
        assert not said, "\n".join(said)


def test_commands_that_documents_name_exist():
    known = set(subcommands())
    for path in EVERY + list(documents("doc")):
        for name in re.findall(r"`tos ([a-z]+)", read(path)):
            assert name in known | {"help"}, f"{path}: tos {name}"


def test_the_tree_of_the_architecture_is_the_tree():
    text = read("doc/architecture.md")
    named = set(re.findall(r"^([a-z]+/(?:[a-z]+/)?) ", text, re.M))
    for folder in named:
        assert os.path.isdir(os.path.join(TOP, folder)), folder
    for room in os.listdir(os.path.join(TOP, "src")):
        assert f"src/{room}/" in named, f"src/{room}/ is not in doc/architecture.md"


def test_tables_of_the_store_are_all_described():
    text, header = read("doc/architecture.md"), read("src/store/store.h")
    for table in re.findall(r'X\(T_[A-Z]+, +"([a-z]+)"', header):
        assert f"| `{table}` |" in text, f"table {table} is not in doc/architecture.md"


def test_make_builds_what_the_examples_run():
    """`make && sudo examples/doorknob/run`, as examples/doorknob/README.md has it."""
    line = subprocess.run(["make", "-n", "-C", TOP, "all", f"BUILD={BUILD}"], capture_output=True, text=True, check=True).stdout
    targets = re.search(r"ninja -C \S+ (.*)", line).group(1).split()
    made = subprocess.run(["ninja", "-C", BUILD, "-t", "query", *targets], capture_output=True, text=True, check=True).stdout
    for program in ("launch", "doorknob-panel", "doorknob-sensor", "doorknob-correlator"):
        assert re.search(rf"^ +(?:\| )?examples/{program}$", made, re.M), f"make does not build {program}:\n{made}"


@pytest.mark.parametrize("path", ["doc/coverage.md", "doc/security.md"])
def test_what_coverage_names_is_there(path):
    """Each test that the page names exists, in the file that it says."""
    proc, unit = {}, ""
    for folder, _, files in os.walk(os.path.join(TOP, "tests")):
        for f in files:
            if f.endswith((".c", ".py")):
                with open(os.path.join(folder, f)) as source:
                    text = source.read()
                if folder.endswith("/proc") and f.startswith("test_"):
                    proc[f[5:-3]] = set(re.findall(r"def test_(\w+)", text))
                elif "/unit/" in folder:
                    unit += text
    wrong, n = [], 0
    for line in read(path).splitlines():
        if not line.startswith(("- ", "| ")):
            continue
        file = None
        for u, in_unit, f, name, more in re.findall(r"unit/(\w+)::(\w+)|(\w*)::(\w+)|(?<=, )([a-z]\w+_\w+_\w+)", line):
            file = "unit" if u else f or file
            name = in_unit or name or more
            n += 1
            if file and (not re.search(r"\b(test_)?" + name, unit) if file == "unit" else name not in proc.get(file, ())):
                wrong.append(f"{file}::{name} in: {line[:80]}")
    assert n > 50 and not wrong, wrong


def test_the_configuration_in_the_manual_is_taken(tmp_path):
    """The example of tosd.conf(5), and every key that it names."""
    with open(os.path.join(TOP, "doc/man/tosd.conf.5.scd")) as f:
        page = f.read()
    example = re.search(r"```\n(.*?)```", page, re.S).group(1)
    conf = tmp_path / "tosd.conf"
    conf.write_text(example)
    conf.chmod(0o600)
    r = subprocess.run([os.path.join(BUILD, "src/kernel/tos-kernel"), "--check-config", "-c", str(conf)],
                       capture_output=True, text=True)
    assert r.returncode == 0 and 'name = "web1"' in r.stdout, r.stderr
    for key in re.findall(r"^\s*(\w+) =", r.stdout, re.M):
        assert key in page or key.startswith("test_"), f"tosd.conf(5) does not mention {key}"
