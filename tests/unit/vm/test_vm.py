"""tos-vm as its kernel sees it: a real process, real frames."""

import os
import shutil
import struct
import subprocess
import time

import cbor2
import pytest

from vm_host import *

# A build that collects garbage at each step spends more on opening a carrier than these give it to run.
as_shipped = pytest.mark.skipif(os.environ.get("TOS_HOSTILE_BUILD") == "1", reason="looks at CPU time")

SANITIZED = os.environ.get("TOS_SANITIZE") == "1"


def fault_of(code, **more):
    with Vm() as vm:
        logs, last = vm.outcome(code, **more)
        assert last[0] == FAULT, last
        return last[2:]


def check(*args, text=None):
    return subprocess.run(
        [binary(), "--check", *map(str, args)], input=text, capture_output=True, text=True, timeout=WAIT_S
    )


# ---- life


def test_nothing_runs_before_start_and_begin_gets_an_empty_self():
    with Vm() as vm:
        with pytest.raises(TimeoutError):
            vm.frame(wait=0.2)
        vm.start("print('chunk') function begin(self) print('begin', next(self)) end")
        vm.expect(STARTED)
        assert vm.expect(LOG) == [1, "chunk"]
        assert vm.expect(LOG) == [1, "begin nil"]
        (frozen,) = vm.expect(FINISHED)
        assert frozen == {"path": [], "state": b"\xa0", "briefcase": {}}
        assert vm.usage[2] >= 0 and vm.usage[3] > 1000


@pytest.mark.parametrize("end", ["", "error('over')", "tos.go('host1')"])
def test_the_last_line_says_how_many_were_dropped(end):
    with Vm() as vm:
        vm.start(f"""function begin(self)
            local n = 0
            for i = 1, 1000 do n = n + (tos.log(i) and 0 or 1) end
            assert(n > 0 and n == tos.usage().dropped_logs)
            self.n = n
            {end}
        end""")
        frames = []
        while not frames or frames[-1][0] not in (FINISHED, FAULT, GO):
            frames.append(vm.frame())
        logs = [f[2:] for f in frames if f[0] == LOG]
        (frozen,) = [v for v in frames[-1] if isinstance(v, dict)]
        n = cbor2.loads(frozen["state"])["n"]
        assert logs[-1] == [3, f"{n} lines were dropped here: at most 200 are kept in a second"]
        assert len(logs) == 1000 - n + 1 and [t for _, t in logs[:2]] == ["1", "2"]


def test_what_is_held_is_made_ready_and_runs_when_it_is_told():
    with Vm() as vm:
        vm.start("print('chunk') function begin(self) print(self.n) end", state=shortest({"n": 7}), held=True)
        vm.send(PAUSE, 1, False)  # which is not the word
        with pytest.raises(TimeoutError):
            vm.frame(wait=0.2)
        assert vm.usage is None
        vm.run("function begin() end", carrier=2)  # others in it do
        vm.expect(FINISHED, 2)
        vm.send(RUN, 1)
        vm.expect(STARTED)
        assert vm.expect(LOG) == [1, "chunk"]
        assert vm.expect(LOG) == [1, "7"]
        vm.expect(FINISHED)


def test_what_is_held_and_cannot_be_made_ready_faults_at_once():
    with Vm() as vm:
        vm.start("function begin() end", path="no list", held=True)
        assert "malformed" in vm.expect(FAULT)[1]
        vm.send(RUN, 1)  # which was on its way
        vm.send(END, 1)
        vm.expect(FORGOTTEN)
        vm.start("function begin() end", carrier=2, held=True)
        vm.send(END, 2)
        vm.expect(FORGOTTEN, 2)


def test_run_is_for_what_is_held():
    with Vm() as vm:
        vm.run("function begin() tos.sleep(60) end")
        vm.send(RUN, 1)
        with pytest.raises(Ended):
            vm.frame()


def test_postman_says_hello_to_echo():
    with Vm() as vm:
        vm.run('function begin(self) assert(tos.post("Echo", "Hello, World")) end')
        assert vm.expect(SEND) == [ONEWAY, "Echo", 0, 0, ["", ["Hello, World"]]]
        vm.expect(FINISHED)


def test_self_travels_and_locals_do_not():
    code = """
    local here = 0
    function begin(self)
        here = here + 1
        self.seen = (self.seen or 0) + 1
        assert(here == 1)
    end"""
    with Vm() as vm:
        _, last = vm.outcome(code)
        _, last = vm.outcome(code, carrier=2, state=last[2]["state"])
        _, last = vm.outcome(code, carrier=3, state=last[2]["state"])
        assert cbor2.loads(last[2]["state"]) == {"seen": 3}


def test_shared_and_cyclic_tables_keep_their_identity():
    make = """
    function begin(self)
        local t = { "x" }
        self.a, self.b, self.list = t, t, { t, { deep = self } }
        self.self, self.int, self.float, self.bin = self, 3, 3.0, "\\xff\\0"
        self[1], self[-5], self[2.5], self[true] = "one", "minus", "half", "yes"
    end"""
    test = """
    function begin(self)
        assert(rawequal(self.a, self.b) and rawequal(self.list[1], self.a))
        assert(self.self == self and self.list[2].deep == self and self.a[1] == "x")
        assert(math.type(self.int) == "integer" and math.type(self.float) == "float")
        assert(self.bin == "\\xff\\0")
        assert(self[1] == "one" and self[-5] == "minus" and self[2.5] == "half" and self[true] == "yes")
    end"""
    with Vm() as vm:
        _, last = vm.outcome(make)
        state = last[2]["state"]
        _, again = vm.outcome(test, carrier=2, state=state)
        assert again[0] == FINISHED, again
        assert again[2]["state"] == state


def test_a_tree_without_sharing_has_no_tags():
    with Vm() as vm:
        _, last = vm.outcome("function begin(self) self.a = { 1, { 2 } } self.b = { x = 1.5 } end")
        assert last[2]["state"] == shortest({"a": [1, [2]], "b": {"x": 1.5}})


@pytest.mark.parametrize(
    "what, where",
    [
        ("self.worker = { callback = print }", "self.worker.callback is a function"),
        ("self[1] = { coroutine.create(print) }", "self[1][1] is a thread"),
        ("self.path = tos.path", "self.path is a userdata"),
        ("self.t = { [{}] = 1 }", "self.t has a key that is a table"),
    ],
)
def test_what_cannot_travel_is_named(what, where):
    code, text, _, frozen = fault_of("function begin(self) %s end" % what)
    assert code == "fault" and text.startswith(where) and "can't travel" in text
    assert frozen is None


def test_a_deep_self_is_an_error_not_a_crash():
    code, text, _, _ = fault_of(
        "function begin(self) local t = self for i = 1, 100000 do t.n = {} t = t.n end end"
    )
    assert "nested too deeply" in text and code == "fault"


def test_a_file_without_begin_faults_and_names_it():
    code, text, _, _ = fault_of("x = 1")
    assert code == "fault" and "begin" in text and "main.lua" in text


def test_an_error_has_file_and_line_and_traceback():
    code, text, trace, frozen = fault_of(
        """
    local function deep() error("oh no") end
    function begin(self)
        tos.briefcase.found = "this"
        deep()
    end"""
    )
    assert code == "fault" and text == "main.lua:2: oh no"
    assert "main.lua:5: in function 'begin'" in trace and "[tos]" not in trace
    assert frozen["briefcase"] == {"found": ["this"]}


def test_an_error_need_not_be_a_string():
    assert fault_of("function begin() error({}) end")[1].startswith("table:")
    assert fault_of("function begin() error() end")[1] == "nil"
    assert (
        fault_of("function begin() error(setmetatable({}, {__tostring = function() return 'me' end})) end")[1]
        == "me"
    )
    assert fault_of("function begin() error(setmetatable({}, {__tostring = error})) end")[0] == "fault"


def test_a_syntax_error_names_file_and_line():
    code, text, _, _ = fault_of("function begin()\n x = = 1 end")
    assert code == "fault" and text.startswith("main.lua:2: ")


def test_bytecode_is_refused():
    code, text, _, _ = fault_of(b"\x1bLua\x54\0\x19\x93")
    assert "binary" in text


def test_recover_is_called_with_the_failure():
    logs = logs_of(
        "function begin() end function recover(self, f) print(self.x, f.code, f.text) end",
        function="recover",
        failure=["lost", "host2 is gone"],
        state=shortest({"x": 7}),
    )
    assert logs == ["7 lost host2 is gone"]


def test_values_returned_by_begin_are_ignored():
    with Vm() as vm:
        _, last = vm.outcome("function begin() return 1, print, {} end")
        assert last[0] == FINISHED


def test_several_carriers_share_a_process_and_nothing_else():
    with Vm() as vm:
        vm.run("x = 1 function begin(self) tos.sleep(0.3) print(x, y) end", carrier=1)
        vm.run("y = 2 function begin(self) print(x, y) end", carrier=2)
        assert vm.expect(LOG, 2) == [1, "nil 2"]
        vm.expect(FINISHED, 2)
        assert vm.expect(LOG, 1) == [1, "1 nil"]
        vm.expect(FINISHED, 1)
        vm.send(END, 1)
        assert vm.expect(FORGOTTEN, 1)[0] >= 0
        vm.run("function begin() end", carrier=1)
        vm.expect(FINISHED, 1)


# ---- memory


def test_memory_cap_is_a_fault_that_names_the_limit():
    code, text, trace, _ = fault_of(
        "function begin(self) local t = {} while true do t[#t + 1] = ('x'):rep(1000) .. #t end end",
        limits={"memory": 4 << 20},
    )
    assert code == "limit" and text.startswith("limit memory:") and "4194304" in text
    assert "begin" in trace


def test_memory_error_can_be_caught_and_work_goes_on():
    logs = logs_of(
        """function begin(self)
            local ok, why = pcall(string.rep, "x", 64 << 20)
            print(ok, why)
            local t = {}
            ok, why = pcall(function() while true do t[#t + 1] = {} end end)
            t = nil
            print(ok, why)
            print(#("y"):rep(1 << 20))
        end""",
        limits={"memory": 4 << 20},
    )
    assert logs == ["false not enough memory", "false not enough memory", "1048576"]


def test_too_small_a_memory_is_a_fault_not_a_crash():
    for cap in range(1000, 200000, 9000):
        with Vm() as vm:
            vm.start("function begin() end", limits={"memory": cap})
            while True:
                frame = vm.frame()
                if frame[0] in (FAULT, FINISHED):
                    break
            if frame[0] == FAULT:
                assert frame[2] == "limit" and "memory" in frame[3], frame


def test_state_limit_faults_and_names_it():
    code, text, _, frozen = fault_of(
        "function begin(self) self.x = ('x'):rep(200000) end", limits={"state": 100000}
    )
    assert code == "limit" and text.startswith("limit state:") and frozen is None
    code, text, _, _ = fault_of(
        "function begin(self) for i = 1, 3 do tos.briefcase['f' .. i] = ('x'):rep(40000) end end",
        limits={"state": 100000},
    )
    assert code == "limit" and text.startswith("limit state:")


# ---- folders


def test_stack_and_queue():
    logs = logs_of(
        """function begin()
            local f = tos.briefcase:folder("S")
            f:push("a"); f:push("b"); f:push("c")
            print(f:pop(), f:pop(), f:pop(), f:pop())
            f:enqueue("a", "b"):enqueue("c")
            print(f:dequeue(), f:dequeue(), f:dequeue(), f:dequeue())
            f:push(1, 2, 3) f:dequeue() f:push(4) f:pop()
            print(#f, f[1], f[2], f[3], f:get(2))
            f[2] = "two" f[3] = { x = { 1, 2 } }
            for i, v in ipairs(f) do print(i, type(v)) end
            local n = 0 for i, v in pairs(f) do n = n + i end print(n)
            f:clear() print(#f, f:bytes(), f:pop())
        end"""
    )
    assert logs == [
        "c b a nil",
        "a b c nil",
        "2 2 3 nil 3",
        "1 number",
        "2 string",
        "3 table",
        "6",
        "0 0 nil",
    ]


def test_briefcase_operations_and_their_errors():
    logs = logs_of(
        """function begin()
            local b = tos.briefcase
            b:create("A")
            print(select(2, pcall(b.create, b, "A")))
            print(select(2, pcall(b.create, b, "PATH")))
            print(pcall(b.folder, b, "Gr\\xc3\\xb6\\xc3\\x9fe"))
            print(pcall(b.folder, b, ("x"):rep(129)))
            print(b:has("A"), b:has("B"), b.B)
            b.tasks = { "one", { "nested", { t = true } } }
            print(b.tasks[1], b.tasks[2][2].t, #b.tasks)
            b.conf = { x = 1 } print(#b.conf, b.conf[1].x)
            b.n = 5 print(b.n[1], tostring(b.n))
            print(table.concat(b:names(), ","))
            local f = b.A
            print(b:delete("A"), b:delete("A"), b:has("A"))
            print(pcall(f.push, f, 1))
            b.n = nil print(b.n)
            print(pcall(function() b.x = print end))
            print(pcall(function() b.folder = 1 end))
            print(b:folder("tasks") == b.tasks, getmetatable(f), rawequal(b.tasks, b.tasks))
        end"""
    )
    assert "already" in logs[0] and "reserved" in logs[1]
    assert logs[2].startswith("false") and "ASCII" in logs[2]
    assert logs[3].startswith("false") and "128" in logs[3]
    assert logs[4] == "true false nil"
    assert logs[5:8] == ["one true 2", "1 1", '5 folder "n" (1 elements, 1 bytes)']
    assert logs[8] == "A,conf,n,tasks"
    assert logs[9] == "true false false"
    assert "no longer" in logs[10]
    assert logs[11] == "nil"
    assert "can't travel" in logs[12] and "main.lua:" in logs[12]
    assert "reserved" in logs[13]
    assert logs[14] == "true folder true"


def test_ten_thousand_folders_within_the_default_memory():
    with Vm() as vm:
        _, last = vm.outcome(
            "function begin() for i = 1, 10000 do tos.briefcase:folder('f' .. i):push(i) end end"
        )
        assert last[0] == FINISHED
        assert len(last[2]["briefcase"]) == 10000 and last[2]["briefcase"]["f77"] == [77]


def test_bytes_and_any_value_survive():
    given = {"bin": [bytes(range(256)), b"", "", "text\0nul"], "v": [None, True, -1, 2**63 - 1, 1.5, [1, {"a": [None]}]]}
    code = """function begin()
        local b, v = tos.briefcase.bin, tos.briefcase.v
        assert(#b == 4 and #b[1] == 256 and b[2] == "" and b[4] == "text\\0nul")
        assert(v[1] == nil and #v == 6 and v[4] == math.maxinteger and v[6][2].a[1] == nil)
        tos.briefcase.mine = tos.bytes("plain")
        tos.briefcase:folder("null"):push(tos.null, nil, { tos.null, 1 })
        tos.briefcase:folder("copy"):push(b[1], 0.1, -0.0, 1/0)
    end"""
    with Vm() as vm:
        _, last = vm.outcome(code, briefcase=given)
        got = last[2]["briefcase"]
        assert got["bin"] == given["bin"] and got["v"] == given["v"]
        assert got["mine"] == [b"plain"] and got["null"] == [None, None, [None, 1]]
        assert got["copy"] == [bytes(range(256)), 0.1, -0.0, float("inf")]


def test_archive_and_unarchive():
    logs = logs_of(
        """function begin()
            local b = tos.briefcase
            b.a = { 1, 2 } b.z = "x"
            local s = b:archive()
            b.a = nil b.other = 1
            print(b:unarchive(s), b.a[2], b.z[1], b.other)
            for i = 0, #s - 1 do assert(b:unarchive(s:sub(1, i)) == nil) end
            print(b:unarchive("x" .. s))
            print(b:unarchive(s .. "x"))
            print(#b:names())
        end"""
    )
    assert logs[0] == "true 2 x nil"
    assert logs[1].startswith("nil malformed") and logs[2].startswith("nil malformed")
    assert logs[3] == "2"


def test_an_archive_is_the_same_bytes_everywhere():
    given = {"b": [1, 2.5, "x"], "a": [{"k": [True, None]}], "longer": [b"\xff\x00"]}
    with Vm() as vm:
        _, last = vm.outcome("function begin(self) self.it = tos.briefcase:archive() end", briefcase=given)
        it = cbor2.loads(last[2]["state"])["it"]
        it = it.encode() if isinstance(it, str) else it
        assert it == shortest(given)
        _, last = vm.outcome(
            "function begin(self) assert(tos.briefcase:unarchive(self.it)) end",
            carrier=2,
            state=last[2]["state"],
        )
        assert last[2]["briefcase"] == given


def test_cost_is_visible():
    logs = logs_of(
        """function begin()
            local f = tos.briefcase:folder("F")
            f:push("abc") print(f:bytes())
            f:push(("x"):rep(1000)) print(f:bytes(), tos.briefcase:bytes())
            f:pop() f[1] = "abcd" print(f:bytes())
        end"""
    )
    assert logs == ["4", "1007 1008", "5"]


# ---- path and code


def test_path_is_a_view_on_the_reserved_folder():
    with Vm() as vm:
        logs, last = vm.outcome(
            """function begin()
                local p, f = tos.path, tos.briefcase:folder("PATH")
                print(p:next(), #p, p[2], p == f, f == tos.briefcase.HOST)
                f:push("host9") print(table.concat(p:get(), ","))
                p:set { "x", "y|z" } print(f[2], #f)
                print(pcall(p.push, p, 5)) print(pcall(p.push, p, "\\xff")) print(pcall(p.set, p, { "a", {} }))
                p:dequeue()
            end""",
            path=["host1", "any-printer-in-building-7"],
        )
        assert logs[0] == "host1 2 any-printer-in-building-7 true true"
        assert logs[1] == "host1,any-printer-in-building-7,host9"
        assert logs[2] == "y|z 2"
        assert all("text" in line and line.startswith("false") for line in logs[3:6])
        assert last[2]["path"] == ["y|z"] and last[2]["briefcase"] == {}


def test_code_can_be_read_and_not_changed():
    logs = logs_of(
        """function begin()
            local c = tos.briefcase:folder("CODE")
            for i, e in ipairs(c) do print(e.name, e.bytes) end
            print(c:read("data.txt"), c:read("none"))
            print(pcall(c.push, c, "x"))
            print(select("#", pcall(function() c[1] = 1 end)), #c)
        end""",
        files={"data.txt": b"seven"},
    )
    assert logs[0] == "data.txt 5" and logs[1].startswith("main.lua ")
    assert logs[2] == "seven nil" and "read-only" in logs[3] and logs[4] == "2 2"


def test_require_finds_files_of_the_bundle_only():
    logs = logs_of(
        """
        local m = require "lib.mod"
        function begin()
            print(m.name, require("lib.mod") == m, mod_global, m.sees())
            print(pcall(require, "os")) print(pcall(require, "a")) print(pcall(require, "bad"))
            print(pcall(require, "b")) print(pcall(require, "fails")) print(pcall(require, "fails"))
            print(require "string" == string, require "tos" == tos, pcall(require, "io"))
            local _, globals = require "lib.mod"
            print(globals.mod_global, rawget(globals, "print"), globals.print == print, select(2, require "lib.mod") == globals)
        end""",
        files={
            "lib/mod.lua": b"mod_global = 1 function begin() end return { name = ..., sees = function() return mod_global end }",
            "a.lua": b"return require 'a'",
            "b.lua": b"return require 'lib.c'",
            "lib/c.lua": b"return require 'b'",
            "bad.lua": b"\n\nx = ",
            "fails.lua": b"error('no luck', 0)",
            "string.lua": b"return {}",
            "tos.lua": b"return {}",
        },
    )
    assert logs[0] == "lib.mod true nil 1"  # what a module sets is its own, a `begin` too
    assert "os.lua" in logs[1] and "requires itself" in logs[2] and "bad.lua:3:" in logs[3]
    assert 'module "b" requires itself' in logs[4]
    assert logs[5] == logs[6] == "false no luck"  # and can be tried again
    assert logs[7].startswith("true true false") and "io.lua" in logs[7]
    assert logs[8] == "1 nil true true"  # its second value: the module's globals


def test_code_that_was_compiled_before_is_the_same_code():
    fails = "function begin(self)\n  local t = require 'lib'\n  error('no ' .. t.luck(self))\nend"
    files = {"lib.lua": b"local n = 0 return { luck = function(self) n = n + 1 lib_n = n return 'luck ' .. n .. lib_n end }"}
    with Vm() as vm:
        for i in range(1, 5):
            _, last = vm.outcome(fails, carrier=i, files=files)
            assert last[3] == "main.lua:3: no luck 11" and "main.lua:3: in function 'begin'" in last[4], last
        _, last = vm.outcome(fails.replace("no ", "bad "), carrier=9, files=files)
        assert last[3] == "main.lua:3: bad luck 11"
        for i in range(10, 110):  # more than are kept, of which none is taken for another
            logs, _ = vm.outcome("function begin() print(%d) print(#tos.briefcase.CODE:read('main.lua')) end" % i, carrier=i)
            assert logs == [str(i), str(74 + (i > 99))]
            vm.send(END, i)
            vm.expect(FORGOTTEN, i)


def test_code_counts_for_the_carriers_memory():
    with Vm() as vm:
        _, last = (vm.start("function begin() end", files={"big": b"x" * (2 << 20)}, limits={"memory": 1 << 20}), vm.frame())
        assert last[0] == FAULT and last[2] == "limit", last
        logs, _ = vm.outcome("function begin() print(tos.usage().memory > 2 << 20) end", carrier=2, files={"big": b"x" * (2 << 20)})
        assert logs == ["true"]


# ---- posts


def test_what_can_be_posted():
    with Vm() as vm:
        vm.run(
            """function begin()
                tos.post("Echo", 5) tos.post("host2/Echo", { 1, 2 }) tos.post("Echo", nil)
                tos.post("Echo", { a = 1 }, { name = "TASK" })
                tos.post("Echo", tos.folder("N", 1, "two"))
                tos.post("Echo", tos.folder { name = "M", 1, { x = 2 } })
                tos.briefcase.F = { "p", "q" } tos.post("Echo", tos.briefcase.F)
                tos.post("Echo", {})
            end"""
        )
        sent = [vm.expect(SEND) for _ in range(8)]
        assert [s[1] for s in sent] == ["Echo", "host2/Echo"] + ["Echo"] * 6
        assert [s[4] for s in sent] == [
            ["", [5]],
            ["", [[1, 2]]],
            ["", [None]],
            ["TASK", [{"a": 1}]],
            ["N", [1, "two"]],
            ["M", [1, {"x": 2}]],
            ["F", ["p", "q"]],
            ["", [{}]],
        ]


def test_misuse_raises_at_the_carriers_line():
    for call, word in [
        ("tos.post()", "destination"),
        ("tos.post('', 1)", "destination"),
        ("tos.post('Echo', print)", "function"),
        ("tos.post('Echo', 1, 2)", "options"),
        ("tos.call('Echo', 1, -1)", "time"),
        ("tos.sleep('x')", "time"),
        ("tos.sleep(0/0)", "time"),
        ("tos.inbox('')", "inbox"),
        ("tos.inbox('x', 0)", "bound"),
        ("tos.go({})", "kernel"),
        ("tos.path.push('x')", "colon"),
        ("tos.folder(print)", "name"),
        ("tos.self().owner = 'mallory'", "owner"),
        ("tos.briefcase:unarchive()", "archive"),
    ]:
        code, text, _, _ = fault_of("function begin()\n%s\nend" % call)
        assert code == "fault" and text.startswith("main.lua:2: "), (call, text)
        assert word in text, (call, text)


def test_call_waits_for_its_own_answer():
    with Vm() as vm:
        vm.run(
            """function begin()
                print(tos.call("Monitor", { "filesystem", "/" }, 2))
                print(tos.call("Monitor", { all = true }, 2, { name = "LIST" }))
                print(tos.call("Gone", 1))
                print(tos.call("Nothing", "x"))
            end"""
        )
        kind, dest, tag, deadline, folder_ = vm.expect(SEND)
        assert (kind, dest, deadline, folder_) == (CALL, "Monitor", 2000, ["", ["filesystem", "/"]])
        vm.send(DELIVER, 1, ANSWER, "", "Monitor", tag + 7, folder("", "not mine"))
        vm.send(DELIVER, 1, ANSWER, "", "Monitor", tag, folder("ok", "first", 2))
        assert vm.expect(LOG)[1] == "first 2"
        _, _, tag, _, folder_ = vm.expect(SEND)
        assert folder_ == ["LIST", [{"all": True}]]
        vm.send(DELIVER, 1, FAILURE, "", "Monitor", tag, folder("failure", "denied", "not you"))
        assert vm.expect(LOG)[1] == "nil denied not you"
        tag = vm.expect(SEND)[2]
        vm.send(DELIVER, 1, FAILURE, "", "", tag, folder("failure", "no-such-inbox", "nobody", "Gone"))
        assert vm.expect(LOG)[1] == "nil no-such-inbox nobody"
        tag = vm.expect(SEND)[2]
        vm.send(DELIVER, 1, ANSWER, "", "Nothing", tag, folder("ok"))
        assert vm.expect(LOG)[1] == "true"
        vm.expect(FINISHED)


def test_call_without_answer_times_out():
    assert logs_of("function begin() print(tos.call('Monitor', 1, 0.2)) end") == [
        "nil timed-out no answer within the time"
    ]


def test_fifty_questions_at_once_each_get_their_own_answer():
    with Vm() as vm:
        vm.run(
            """function begin()
                local r = {}
                for i = 1, 50 do r[i] = tos.ask("X", i) end
                for i = 50, 1, -1 do assert(tos.await(r[i]) == -i) end
                print(select(2, r[1]:await()))
            end"""
        )
        asked = [vm.expect(SEND) for _ in range(50)]
        for s in reversed(asked[::2]):
            vm.send(DELIVER, 1, ANSWER, "", "X", s[2], folder("ok", -s[4][1][0]))
        for s in asked[1::2]:
            vm.send(DELIVER, 1, ANSWER, "", "X", s[2], folder("ok", -s[4][1][0]))
        assert vm.expect(LOG)[1].startswith("wrong-state")
        vm.expect(FINISHED)


def test_post_limits_are_known_at_once():
    logs, last = None, None
    with Vm() as vm:
        vm.run(
            """function begin()
                local n, code, text = 0
                for i = 1, 1000 do
                    local ok, c, t = tos.post("Echo", i)
                    if ok then n = n + 1 else code, text = c, t end
                end
                print(n <= 20, n >= 10, code, text)
            end""",
            limits={"posts": 10},
        )
        logs, last = vm.to_end()
        assert logs[0].startswith("true true limit limit posts")
    with Vm() as vm:
        vm.run(
            "function begin() print(tos.post('E', ('x'):rep(600))) print(tos.post('E', ('x'):rep(600))) end",
            limits={"sent": 1000},
        )
        logs, last = vm.to_end()
        assert logs[0] == "true" and logs[1].startswith("nil limit limit sent")


def test_too_large_a_post_is_refused():
    with Vm() as vm:
        vm.run("function begin() print(tos.post('E', ('x'):rep(1 << 20))) end")
        logs, _ = vm.to_end()
        assert logs[0].startswith("nil too-large") and not vm.kept


# ---- inboxes


def open_inbox(vm, name="box"):
    seq, is_open, got, bound = vm.expect(INBOX)
    assert is_open and got == name and bound > 0
    vm.send(DONE, 1, seq, "", "", None)


def test_inbox_gives_folders_in_order():
    with Vm() as vm:
        vm.run(
            """function begin()
                local b = tos.inbox("box")
                local f = b:next(5)
                print(f.sender, f.name, f.data.x, #f, f.wants_answer)
                tos.sleep(0.3)
                print(b:size(), #b)
                for i = 1, 3 do print(b:next(1).data) end
                print(b:poll()) print(b:next(0.1))
                print(b:close()) print(b:next(1))
            end"""
        )
        open_inbox(vm)
        vm.send(DELIVER, 1, ONEWAY, "box", "host0#7", 0, folder("N", {"x": 5}, 2))
        assert vm.expect(TAKEN) == ["box", 1]
        assert vm.expect(LOG)[1] == "host0#7 N 5 2 false"
        for i in range(3):
            vm.send(DELIVER, 1, ONEWAY, "box", "s", 0, folder("", i))
        assert vm.expect(LOG)[1] == "3 3"
        for i in range(3):
            assert vm.expect(TAKEN) == ["box", 1]
            assert vm.expect(LOG)[1] == str(i)
        assert vm.expect(LOG)[1].startswith("nil timed-out")
        assert vm.expect(LOG)[1].startswith("nil timed-out")
        seq, is_open, name, _ = vm.expect(INBOX)
        assert not is_open and name == "box"
        vm.send(DELIVER, 1, ONEWAY, "box", "s", 0, folder("", "too late"))
        vm.send(DONE, 1, seq, "", "", None)
        assert vm.expect(LOG)[1] == "true"
        assert vm.expect(LOG)[1].startswith("nil closed")
        vm.expect(FINISHED)


def test_a_refused_inbox_is_an_answer():
    with Vm() as vm:
        vm.run("function begin() print(tos.inbox('Echo')) print(tos.inbox('Echo')) end")
        for _ in range(2):
            seq = vm.expect(INBOX)[0]
            vm.send(DONE, 1, seq, "denied", "global names belong to extensions", None)
            assert vm.expect(LOG)[1] == "nil denied global names belong to extensions"


def test_a_carrier_can_answer():
    with Vm() as vm:
        vm.run(
            """function begin()
                local b = tos.inbox("box")
                local f = b:next(5)
                print(f:answer { "yes", 2 }) print(f:answer(1))
                print(b:next(5):refuse("denied", "no"))
            end""",
            answers=True,
        )
        open_inbox(vm)
        vm.send(DELIVER, 1, CALL, "box", "host0#7", 99, folder("Q", 1))
        vm.expect(TAKEN)
        assert vm.expect(SEND) == [ANSWER, "host0#7", 99, 0, ["ok", ["yes", 2]]]
        assert vm.expect(LOG)[1] == "true"
        assert vm.expect(LOG)[1].startswith("nil wrong-state")
        vm.send(DELIVER, 1, CALL, "box", "host0#7", 100, folder("Q", 1))
        vm.expect(TAKEN)
        assert vm.expect(SEND) == [FAILURE, "host0#7", 100, 0, ["failure", ["denied", "no"]]]
        vm.expect(LOG)
        vm.expect(FINISHED)


def test_no_answer_is_sent_to_a_kernel_that_does_not_pass_it_on():
    with Vm() as vm:
        vm.run("function begin() local b = tos.inbox('box', 1) print(b:next(5):answer(1)) tos.sleep(9) end")
        open_inbox(vm)
        vm.send(DELIVER, 1, CALL, "box", "host0#7", 99, folder("Q", 1))
        vm.expect(TAKEN)
        assert vm.expect(LOG)[1].startswith("nil unsupported")
        for _ in range(2):
            vm.send(DELIVER, 1, CALL, "box", "host0#7", 99, folder("Q", 1))
        assert vm.expect(TAKEN) == ["box", 1]
        with pytest.raises(TimeoutError):
            vm.frame(wait=0.2)


def test_folders_beyond_the_memory_cap_are_not_kept():
    with Vm() as vm:
        vm.run(
            """function begin()
                local b = tos.inbox("box")
                tos.sleep(1)
                print(b:size() < 100, tos.usage().dropped_folders > 0)
            end""",
            limits={"memory": 1 << 20},
        )
        open_inbox(vm)
        for _ in range(100):
            vm.send(DELIVER, 1, ONEWAY, "box", "s", 0, folder("", "x" * 50000))
        logs, last = vm.to_end()
        assert logs == ["true true"] and last[0] == FINISHED


# ---- moves


def test_go_that_is_refused_returns_in_the_same_run():
    with Vm() as vm:
        vm.run(
            """function begin(self)
                local here = "local"
                self.n = 1
                print(tos.go("host9")) print(here)
                tos.go()
                print("not reached")
            end""",
            path=["host2"],
        )
        seq, dest, frozen = vm.expect(GO)
        assert dest == "host9" and cbor2.loads(frozen["state"]) == {"n": 1} and frozen["path"] == ["host2"]
        assert vm.usage is not None
        vm.send(DELIVER, 1, ONEWAY, "none", "s", 0, folder(""))
        with pytest.raises(TimeoutError):
            vm.frame(wait=0.2)  # silence while it departs
        vm.send(DONE, 1, seq, "unreachable", "no link to host9", None)
        assert vm.expect(LOG)[1] == "nil unreachable no link to host9"
        assert vm.expect(LOG)[1] == "local"
        seq, dest, frozen = vm.expect(GO)
        assert dest == ""
        vm.send(END, 1)
        vm.expect(FORGOTTEN)
        with pytest.raises(TimeoutError):
            vm.frame(wait=0.2)
        vm.run("function begin() end")
        vm.expect(FINISHED)


def test_go_with_a_state_that_cannot_travel_says_so():
    logs = logs_of("function begin(self) self.f = print print(tos.go('host2')) self.f = nil end")
    assert logs == ["nil unsupported self.f is a function; it can't travel"]


def test_checkpoint():
    with Vm() as vm:
        vm.run("function begin(self) self.x = 1 print(tos.checkpoint()) print(tos.checkpoint()) end")
        seq, frozen = vm.expect(CHECKPOINT)
        assert cbor2.loads(frozen["state"]) == {"x": 1}
        vm.send(DONE, 1, seq, "", "", None)
        assert vm.expect(LOG)[1] == "true"
        seq, frozen = vm.expect(CHECKPOINT)
        vm.send(DONE, 1, seq, "store", "disk full", None)
        assert vm.expect(LOG)[1] == "nil store disk full"


def test_clone_freezes_the_carrier_and_lets_it_go_on():
    with Vm() as vm:
        vm.run("""function begin(self)
            self.x = 1
            print(tos.clone())
            print(tos.clone("host7", { cpu = 1.5, clones = 2, hops = 3 }))
            print(pcall(tos.clone, "host7", { memory = 1 }))
            print(pcall(tos.clone, "host7", { cpu = -1 }))
            print(pcall(tos.clone, 7))
            self.x = 2
        end""")
        seq, dest, split, frozen = vm.expect(CLONE)
        assert (dest, split, cbor2.loads(frozen["state"])) == ("", {}, {"x": 1})
        vm.send(DONE, 1, seq, "", "host0#1.1", None)
        assert vm.expect(LOG)[1] == "host0#1.1"
        seq, dest, split, frozen = vm.expect(CLONE)
        assert (dest, split) == ("host7", {"cpu": 1500, "hops": 3, "clones": 2})
        vm.send(DONE, 1, seq, "limit", "limit clones", None)
        assert vm.expect(LOG)[1] == "nil limit limit clones"
        for word in ("memory", "cpu", "kernel's name"):
            line = vm.expect(LOG)[1]
            assert line.startswith("false") and word in line
        assert cbor2.loads(vm.expect(FINISHED)[0]["state"]) == {"x": 2}


# ---- waiting and coroutines


def test_waits_inside_coroutines_reach_the_loop():
    with Vm() as vm:
        vm.run(
            """function begin()
                local function ask(n) local v = tos.call("X", n) coroutine.yield(v) return "end" end
                local co = coroutine.create(ask)
                print(coroutine.resume(co, 1)) print(coroutine.resume(co)) print(coroutine.resume(co))
                for v in coroutine.wrap(function() for i = 1, 2 do coroutine.yield(tos.call("X", i)) end end) do
                    print("gen", v)
                end
                print(coroutine.wrap(function() return coroutine.wrap(function() tos.sleep(0.01) return 7 end)() end)())
                print(pcall(coroutine.wrap(function() tos.sleep(0) error("inner") end)))
                print(pcall(coroutine.yield, 1))
                print(pcall(tostring, setmetatable({}, { __tostring = function() tos.sleep(0) return "" end })))
                print(coroutine.isyieldable(), coroutine.status(co), coroutine.close(co))
            end"""
        )
        logs = []
        while True:
            frame = vm.frame()
            if frame[0] == SEND:
                vm.send(DELIVER, 1, ANSWER, "", "X", frame[4], folder("ok", frame[6][1][0] * 10))
            elif frame[0] == LOG:
                logs.append(frame[3])
            else:
                assert frame[0] == FINISHED, frame
                break
        assert logs[:6] == [
            "true 10",
            "true end",
            "false cannot resume dead coroutine",
            "gen 10",
            "gen 20",
            "7",
        ]
        assert "inner" in logs[6] and logs[6].startswith("false")
        assert "outside a coroutine" in logs[7] and "cannot wait here" in logs[8]
        assert logs[9] == "true dead true"


def test_sleep_and_clocks():
    logs = logs_of(
        """function begin()
            local a, w = tos.clock(), tos.now()
            tos.sleep(0.25)
            print(tos.clock() - a >= 0.24, tos.now() - w < 10, math.type(w))
        end"""
    )
    assert logs == ["true true float"]


# ---- about itself


def test_properties_are_read_only():
    logs = logs_of(
        """function begin()
            local s = tos.self()
            print(s.name, s.owner, s.home, s.kernel, tos.kernel())
            print(pcall(function() s.owner = "mallory" end))
            print(pcall(rawset, s, "owner", "mallory"))
            print(pcall(setmetatable, s, {}))
            print(s.owner, getmetatable(s))
            local n = 0 for k, v in pairs(s) do n = n + 1 end print(n)
        end"""
    )
    assert logs[0] == "host0#42 alice host0 host1 host1"
    assert all(line.startswith("false") for line in logs[1:4])
    assert logs[4] == "alice properties" and logs[5] == "5"


def test_limits_and_usage_agree_with_start_and_follow_changes():
    with Vm() as vm:
        vm.run(
            """function begin()
                local l, u = tos.limits(), tos.usage()
                print(l.cpu, l.hops, l.memory, u.hops, u.cpu >= 1.5, u.memory > 1000)
                tos.post("E", "abc") print(tos.usage().sent, tos.usage().posts)
                tos.sleep(0.3)
                print(tos.limits().hops)
            end""",
            limits={"cpu": 2500, "hops": 3, "memory": 1 << 22, "a-later-one": 5},
            usage={"hops": 2, "cpu": 1500, "sent": 100},
        )
        assert vm.expect(LOG)[1] == "2.5 3 4194304 2 true true"
        vm.expect(SEND)
        vm.send(LIMITS, 1, {"hops": 9}, {"clones": 4})
        assert vm.expect(LOG)[1] == "107 1"
        assert vm.expect(LOG)[1] == "9"


def test_log_lines_are_utf8_and_bounded():
    with Vm() as vm:
        vm.run("function begin() tos.log('a', 1, nil, '\\xff\\xc3\\xa4') print(('x'):rep(100000)) for i = 1, 999 do print(i) end end")
        logs, _ = vm.to_end()
        assert logs[0] == "a 1 nil ?\u00e4" and len(logs[1]) == 4096 and len(logs) <= 400


# ---- containment


GLOBALS = """
_G _VERSION assert collectgarbage coroutine coroutine.close coroutine.create coroutine.isyieldable coroutine.resume
coroutine.running coroutine.status coroutine.wrap coroutine.yield error getmetatable ipairs math math.abs math.acos
math.asin math.atan math.ceil math.cos math.deg math.exp math.floor math.fmod math.huge math.log math.max
math.maxinteger math.min math.mininteger math.modf math.pi math.rad math.random math.randomseed math.sin math.sqrt
math.tan math.tointeger math.type math.ult next pairs pcall print rawequal rawget rawlen rawset require select
setmetatable string string.byte string.char string.find string.format string.gmatch string.gsub string.len
string.lower string.match string.pack string.packsize string.rep string.reverse string.sub string.unpack string.upper
table table.concat table.insert table.move table.pack table.remove table.sort table.unpack tonumber tos tos.ask
tos.await tos.briefcase tos.bytes tos.call tos.checkpoint tos.clock tos.clone tos.folder tos.go tos.inbox tos.kernel tos.limits
tos.log tos.now tos.null tos.path tos.post tos.self tos.sleep tos.usage tostring type utf8 utf8.char utf8.charpattern
utf8.codepoint utf8.codes utf8.len utf8.offset xpcall
""".split()


def test_the_list_of_reachable_globals_is_this():
    logs = logs_of(
        """function begin()
            local out = {}
            for k, v in pairs(_G) do
                if k ~= "begin" then out[#out + 1] = k end
                if type(v) == "table" and v ~= _G then for m in pairs(v) do out[#out + 1] = k .. "." .. m end end
            end
            table.sort(out)
            tos.briefcase.x = table.concat(out, " ")
            for i = 1, #out, 20 do print(table.concat(out, " ", i, math.min(i + 19, #out))) end
        end"""
    )
    assert " ".join(logs).split() == sorted(GLOBALS)


def test_doors_are_shut():
    logs = logs_of(
        """function begin()
            print(getmetatable(""), pcall(setmetatable, {}, { __gc = print }))
            print(string.dump, load, loadfile, dofile, os, io, debug, package)
            print(pcall(collectgarbage, "stop"))
            print(math.type(collectgarbage("count")))
            for _, o in ipairs { tos.path, tos.briefcase, tos.self(), tos.bytes("x") } do
                print(type(o), type(getmetatable(o)), pcall(rawset, o, 1, 1))
            end
            ipairs, pairs, error, string.find, table.concat = nil -- changes nothing for the API
            tos.briefcase:folder("F"):set { 1, 2 }
            print(#tos.briefcase.F)
        end"""
    )
    assert logs[0].startswith("string false") and "__gc" in logs[0]
    assert logs[1] == " ".join(["nil"] * 8)
    assert logs[2].startswith("false") and logs[3] == "float"
    assert all(line.startswith("userdata string false") for line in logs[4:8])
    assert logs[8] == "2"


def test_tables_that_fill_as_they_are_used_look_full():
    logs = logs_of(
        """
        local seen = {}
        for k in next, math do seen[#seen + 1] = k end
        print(#seen, rawget(string, "rep") ~= nil, rawget(utf8, "none"), getmetatable(table), getmetatable(_G))
        coroutine.wrap = nil print(coroutine.wrap, rawget(coroutine, "wrap"), pcall(coroutine.create))
        tos.call = "mine" print(tos.call, tos.ask ~= nil) tos.call = nil print(tos.call)
        tos.path = nil print(tos.path, tos.folder ~= nil)
        function begin(self)
            print(select(2, pcall(function() return ("x"):nothing() end)))
            for k, v in pairs(_G) do seen[k] = v end
            print(seen.print == print, seen.tos == tos, seen.require == require, _G._G == _G, rawequal(require "math", math))
            setmetatable(utf8, { __index = function(_, k) return "no " .. k end }) print(utf8.len ~= nil, utf8.other)
            local mine = setmetatable({}, { __index = string, __newindex = table }) mine.added = 1
            print(mine.rep("ab", 2), rawget(mine, "rep"), table.added, "10" + 5, #table, table.unpack({ 7 }))
            print(pcall(function() self.x = string tos.checkpoint() end))
            self.x = nil
        end"""
    )
    assert logs[0] == "27 true nil nil nil"
    assert logs[1].startswith("nil nil false")
    assert logs[2:5] == ["mine true", "nil", "nil true"]
    assert "main.lua:9:" in logs[5] and "method 'nothing'" in logs[5]
    assert logs[6] == "true true true true true"
    assert logs[7] == "true no other"
    assert logs[8] == "abab nil 1 15 0 7"
    assert logs[9].startswith("true")


def test_a_library_cannot_travel():
    for code in ("function begin(self) self.x = math end", "function begin() tos.briefcase.x = tos end"):
        kind, text, _, _ = fault_of(code)
        assert kind == "fault" and "can't travel" in text, text


@pytest.mark.parametrize(
    "bytes_",
    [
        b"\xff\xff\xff\xff",
        b"\0\0\0\0",
        struct.pack(">I", 3) + b"\x82\x18\x63",
        struct.pack(">I", 4) + b"\x83\x18\x21\x05",
        struct.pack(">I", 4) + b"\x82\x18\x20\x01",
        struct.pack(">I", 5) + b"\x9f\x18\x23\x01\xff",
    ],
    ids=["huge", "empty", "unknown-type", "unknown-carrier", "start-without-map", "indefinite"],
)
def test_a_frame_that_breaks_the_rules_ends_the_process(bytes_):
    with Vm() as vm:
        vm.raw(bytes_)
        with pytest.raises(Ended):
            vm.frame()
        assert vm.process.wait(WAIT_S) == 1


def test_it_ends_when_the_kernel_is_gone():
    with Vm() as vm:
        vm.run("function begin() tos.sleep(1000) end")
        vm.socket.shutdown(2)
        assert vm.process.wait(WAIT_S) == 0


@pytest.mark.parametrize("part", ["state", "bundle", "briefcase", "path"])
def test_a_carrier_of_broken_parts_faults_and_hurts_no_other(part):
    broken = {"state": b"\xd8\x1d\x05", "bundle": b"\x00", "briefcase": {"\u00e4": []}, "path": [5]}[part]
    with Vm() as vm:
        vm.start("function begin() end", **{part: broken})
        code, text, _, _ = vm.expect(FAULT)
        assert code == "fault" and ("code" if part == "bundle" else part) in text
        vm.run("function begin() end", carrier=2)
        vm.expect(FINISHED, 2)


# ---- tos-vm --check


def test_check_says_file_line_and_reason(tmp_path):
    good, bad, none = tmp_path / "good.lua", tmp_path / ("long" * 30 + ".lua"), tmp_path / "none.lua"
    good.write_text("#!/usr/bin/env lua\nfunction begin(self) end\n")
    bad.write_text("function begin(self)\n\n  x = = 1\nend\n")
    none.write_text("function start(self) local begin = 1 end\n")
    assert check(good).returncode == 0
    r = check(bad)
    assert r.returncode == 1 and r.stderr.startswith("%s:3: " % bad)
    r = check(none)
    assert r.returncode == 1 and "begin" in r.stderr and str(none) in r.stderr
    assert check(good, none).returncode == 0
    assert check(tmp_path / "missing.lua").returncode == 1
    r = check("-", "-e", text="x =")
    assert r.returncode == 1 and r.stderr.startswith("-e:1: ")
    assert check("-", "-e", text="begin = print").returncode == 0
    assert check().returncode == 2
    binary_ = tmp_path / "binary.lua"
    binary_.write_bytes(b"\x1bLuaS")
    assert check(binary_).returncode == 1


def test_check_runs_nothing(tmp_path):
    evil = tmp_path / "evil.lua"
    evil.write_text("while true do end function begin() end")
    assert check(evil).returncode == 0


# ---- the libraries of our own


def test_string_and_table_functions_answer_as_those_of_the_system(tmp_path):
    lua = shutil.which("lua5.4")
    if not lua:
        pytest.skip("no lua5.4 here")
    text = open(os.path.join(os.path.dirname(__file__), "same.lua")).read()
    (tmp_path / "main.lua").write_text("local say = print\n" + text.replace("local say = ...", "", 1))
    theirs = subprocess.run([lua, tmp_path / "main.lua"], capture_output=True, check=True, timeout=WAIT_S).stdout
    # A folder holds the lines, since the log has a rate.
    code = """local lines = {}
        local function say(line) lines[#lines + 1] = line end
        local function cases(...) %s end
        function begin(self)
            cases(say)
            self.lines = lines
        end""" % text
    with Vm() as vm:
        _, last = vm.outcome(code, limits={"memory": 64 << 20, "state": 16 << 20})
    assert last[0] == FINISHED, last
    ours = cbor2.loads(last[2]["state"])["lines"]
    ours = b"\n".join(line if isinstance(line, bytes) else line.encode() for line in ours).split(b"\n")
    for mine, other in zip(ours, theirs.split(b"\n"), strict=False):
        assert mine == other
    assert len(ours) == theirs.count(b"\n")


# ---- many in one process

LOOP = "function begin() while true do end end"
ECHO = """function begin(self)
    local box = tos.inbox("in")
    while true do
        local m = box:next(60)
        if m then tos.post("X", m.data) end
    end
end"""


def ask(vm, carrier, what):
    """What a carrier running ECHO says to that."""
    vm.send(DELIVER, carrier, ONEWAY, "in", "s", 0, folder("", what))
    while True:
        frame = vm.frame()
        if frame[:2] == [SEND, carrier]:
            assert frame[6] == ["", [what]]
            return
        assert frame[0] in (TAKEN, LOG, FAULT), frame


def echo(vm, carrier):
    vm.run(ECHO, carrier=carrier)
    (seq, is_open, name, _) = vm.expect(INBOX, carrier)
    assert is_open and name == "in"
    vm.send(DONE, carrier, seq, "", "", None)
    ask(vm, carrier, 0)


# Each runs for ever, somewhere else.
SHAPES = {
    "plain": "while true do end",
    "pcall": "while true do pcall(function() while true do end end) end",
    "coroutine": "while true do coroutine.wrap(function() while true do end end)() end",
    "coroutines": "local function f(n) if n > 0 then coroutine.wrap(f)(n - 1) end while true do end end f(20)",
    "short coroutines": "while true do coroutine.wrap(function() end)() end",
    "pingpong": "local co = coroutine.wrap(function() while true do coroutine.yield() end end) while true do co() end",
    "metamethod": "return setmetatable({}, { __index = function() while true do end end }).x",
    "compared": "return setmetatable({}, { __lt = function() while true do end end }) < {}",
    "sort": "table.sort({ 1, 2, 3 }, function() while true do end end)",
    "gsub": "string.gsub('x', 'x', function() while true do end end)",
    "iterator": "for _ in function() while true do end end do end",
    "close": "local x <close> = setmetatable({}, { __close = function() while true do end end })",
    "rep": "while true do ('x'):rep(1e6) end",
    "insert": "local t = {} while true do table.insert(t, 1, 1) if #t > 1e5 then t = {} end end",
    "concat": "local t = {} for i = 1, 1e5 do t[i] = 'x' end while true do table.concat(t) end",
    "move": "table.move({}, 1, 1 << 40, 2)",
    "many": "local t = {} for i = 1, 1e5 do t[i] = -i end while true do table.sort(t) end",
    "lower": "local s = ('x'):rep(1e6) while true do s:lower() end",
    "all matches": "local s = ('x'):rep(1e5) while true do s:gsub('y*', 'z') end",
}


@as_shipped
@pytest.mark.parametrize("shape", SHAPES)
def test_a_neighbour_is_heard_while_one_computes(shape):
    with Vm() as vm:
        echo(vm, 1)
        vm.run("function begin() %s end" % SHAPES[shape], carrier=2, limits={"cpu": 3600000, "memory": 64 << 20})
        began = time.monotonic()
        for i in range(1, 40):
            ask(vm, 1, i)
        assert time.monotonic() - began < WAIT_S / 4
        vm.send(END, 2)
        while vm.frame()[0] != FORGOTTEN:
            pass
        ask(vm, 1, "still")


# What can't be left for a while is stopped by an error that can't be caught for good, or dropped.
STOPPED = {
    "tostring": "tostring(setmetatable({}, { __tostring = function() while true do end end }))",
    "tostring, caught": "tostring(setmetatable({}, { __tostring = function() while true do pcall(function() while true do end end) end end }))",
    "message handler": "xpcall(error, function() while true do end end)",
    "closed": "local co = coroutine.create(function() local x <close> = setmetatable({}, { __close = function() while true do end end }) coroutine.yield() end) coroutine.resume(co) assert(coroutine.close(co))",
    "find": "('a'):rep(1e5):find('.-b')",
    "find three": "('a'):rep(3000):find('.-.-.-b')",
    "find optional": "('a'):rep(24):find(('a?'):rep(24) .. ('a'):rep(24))",
    "balance": "('('):rep(2e5):find('%b()')",
    "captures": "('x'):rep(20000):gsub('(.*)(.*)(.*)y', '')",
    "proxy": "table.concat(setmetatable({}, { __index = table.concat, __len = function() return 1 << 40 end }))",
    "ipairs": "for _ in ipairs(setmetatable({}, { __index = function() while true do end end })) do end",
}


@pytest.mark.parametrize("shape", STOPPED)
def test_what_cannot_pause_is_stopped(shape):
    with Vm() as vm:
        echo(vm, 1)
        vm.run(LOOP, carrier=3)
        vm.start("function begin() %s end" % STOPPED[shape], carrier=2)
        while True:
            frame = vm.frame()
            if frame[:2] == [FAULT, 2]:
                assert any(w in frame[3] for w in ("too long", "too complex", "too many", "hung", "limit cpu", "memory", "error in error", "stack overflow", "invalid value")), frame
                break
            assert frame[:2] != [FINISHED, 2] or shape in ("balance", "captures", "message handler"), frame
            if frame[:2] == [FINISHED, 2]:
                break
        for i in range(1, 10):
            ask(vm, 1, i)


@as_shipped
def test_slices_are_fair():
    with Vm() as vm:
        for n in range(1, 5):
            vm.run("function begin() local n = 0 while true do n = n + 1 end end", carrier=n, limits={"cpu": 3600000})
        used = {}
        while len(used) < 4 or min(used.values()) < 300000:
            frame = vm.read()
            if frame[0] == USAGE:
                used[frame[1]] = frame[2]
        assert max(used.values()) < 2 * min(used.values()), used


def used_of_each(vm, n, least_us):
    """CPU time of carriers 1..n when the second has used that much."""
    used = dict.fromkeys(range(1, n + 1), 0)
    while used[2] < least_us:
        frame = vm.read()
        if frame[0] == USAGE:
            used[frame[1]] = frame[2]
        if frame[0] == CHECKPOINT:
            vm.send(DONE, frame[1], frame[2], "", "", None)
    return used


# Slices that can't be ended in time; and a carrier that is always just awake.
GREEDY = {
    "no pause": STOPPED["closed"].replace("assert(", "pcall(error, "),
    "always awake": "for _ = 1, 200000 do end tos.checkpoint()",
}


@as_shipped
@pytest.mark.parametrize("shape", GREEDY)
def test_who_is_in_the_way_of_others_gets_no_more_than_they(shape):
    with Vm() as vm:
        for n in range(2, 5):
            vm.run(LOOP, carrier=n, limits={"cpu": 3600000})
        vm.start("function begin() while true do %s end end" % GREEDY[shape], carrier=1, limits={"cpu": 3600000})
        used = used_of_each(vm, 4, 400000)
        assert used[1] < 1.5 * used[2], used


@as_shipped
def test_work_that_others_have_with_one_is_its_own():
    with Vm() as vm:
        for n in range(1, 5):
            vm.run(LOOP, carrier=n, limits={"cpu": 3600000})
        before = used_of_each(vm, 4, 20000)  # all of them are at it: what nobody waits for costs nothing
        for step in range(1, 9):
            vm.send(CHARGE, 1, 40000)
            used = used_of_each(vm, 4, before[2] + step * 50000)  # so often it says what was used
        assert used[1] - before[1] < 0.8 * (used[2] - before[2]), (before, used)


@as_shipped
def test_cpu_is_counted_for_each_and_its_limit_stops_one():
    with Vm() as vm:
        echo(vm, 1)
        vm.run(LOOP, carrier=2, limits={"cpu": 300}, usage={"cpu": 100})
        vm.run(LOOP, carrier=3, limits={"cpu": 3600000})
        while True:
            frame = vm.frame()
            if frame[0] == FAULT:
                break
        assert frame[1:3] == [2, "limit"] and frame[3].startswith("limit cpu: used 3") and "of 300 ms" in frame[3], frame
        ask(vm, 1, 1)
        vm.send(END, 1)
        while True:
            frame = vm.frame()
            if frame[0] == FORGOTTEN:
                break
        assert frame[1] == 1 and frame[2] < 150000, frame


def test_a_paused_carrier_does_not_run_until_it_may():
    with Vm() as vm:
        vm.run(LOOP, carrier=2, limits={"cpu": 3600000})
        vm.run("function begin() while true do tos.log(tos.clock()) tos.sleep(0.01) end end", carrier=1)
        while vm.frame()[:2] != [LOG, 1]:
            pass
        vm.send(PAUSE, 1, True)
        vm.send(PAUSE, 2, True)
        with pytest.raises(TimeoutError):
            while True:
                vm.read(wait=0.3)
        vm.send(PAUSE, 1, False)
        while vm.frame()[:2] != [LOG, 1]:
            pass
        vm.send(END, 2)
        while vm.frame()[0] != FORGOTTEN:
            pass


def test_a_deadline_is_kept_while_another_computes():
    with Vm() as vm:
        vm.run(LOOP, carrier=2, limits={"cpu": 3600000})
        vm.run("function begin() for i = 1, 20 do tos.sleep(0.01) end end", carrier=1)
        began = time.monotonic()
        while vm.frame()[:2] != [FINISHED, 1]:
            pass
        assert time.monotonic() - began < WAIT_S / 4


def resident_kib(vm):
    with open(f"/proc/{vm.process.pid}/smaps_rollup") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("Rss:"))


@pytest.mark.skipif(SANITIZED, reason="there every block is from malloc, and nothing is folded")
@pytest.mark.skipif(os.environ.get("TOS_HOSTILE_BUILD") == "1", reason="there everybody is folded at once")
def test_who_waits_for_long_is_folded_and_goes_on_as_before():
    n = 100
    with Vm() as vm:
        bare = resident_kib(vm)
        vm.run("function begin() local x = 7 coroutine.wrap(function() tos.sleep(6) print('slept', x) end)() end", carrier=999)
        for i in range(1, n + 1):
            vm.run(
                """function begin(self)
                    self.t = { 1, { "two" } } self.t[3] = self.t
                    local b, n = tos.inbox("in"), 0
                    while true do
                        n = n + 1
                        tos.post("out", { b:next(100).data, n, self.t[3][2][1], collectgarbage("count") < 60 })
                    end
                end""",
                carrier=i,
            )
            (seq, _, _, _) = vm.expect(INBOX, i)
            vm.send(DONE, i, seq, "", "", None)
        told = set()
        while len(told) < n + 1:  # each says what that cost
            frame = vm.read()
            if frame[0] == USAGE:
                told.add(frame[1])
        assert resident_kib(vm) - bare < 20 * n, (bare, resident_kib(vm))  # 31 and more each where nobody is folded
        for again in (1, 2):
            for i in range(1, n + 1):
                vm.send(DELIVER, i, ONEWAY, "in", "s", 0, folder("", i))
                assert vm.frame()[0] == TAKEN
                assert vm.expect(SEND, i)[4] == ["", [[i, again, "two", True]]]
        for i in range(1, n + 1):
            vm.send(END, i)
            vm.expect(FORGOTTEN, i)
        assert vm.expect(LOG, 999)[1] == "slept 7"


def test_hundreds_of_carriers_and_each_answers():
    with Vm() as vm:
        for n in range(1, 301):
            echo(vm, n)
        for n in range(300, 0, -7):
            ask(vm, n, "x")


def test_sort_and_gsub_may_wait_in_their_functions():
    logs = logs_of(
        """function begin()
            local t = { 3, 1, 2 }
            table.sort(t, function(a, b) tos.sleep(0.001) return a < b end)
            print(table.concat(t, " "))
            print((("abc"):gsub("%w", function(c) tos.sleep(0.001) return c:upper() .. "." end)))
        end"""
    )
    assert logs == ["1 2 3", "A.B.C."]
