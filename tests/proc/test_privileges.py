"""A directory and a listening socket for isolated extensions: what is granted is there, what is not is not."""
import os
import socket
import threading

import pytest

from fleet import KERNEL, QUICK, TOS, Fleet, conf_text, wait_for
from test_extender import audited, compiled, packaged, refused, rows, running

pytestmark = pytest.mark.skipif(not os.path.exists(KERNEL) or not os.path.exists(TOS), reason="TOS_BUILD names no build")

# Remembers what is posted to it; "lines" asks how many there were, and for the last.
BOOK = """local n, last = 0, "none"
extension { name = "book", inboxes = { Book = function(m)
    if m.elements[1] == "lines" then return n, last end
    n, last = n + 1, m.elements[1]
end } }
"""

SHELF = """extension { name = "shelf", privileges = "directory", inboxes = { Shelf = function(m)
    if m.elements[1] == "read" then return io.open(tos.directory() .. "/n"):read("a") end
    local f <close> = assert(io.open(tos.directory() .. "/n", "w"))
    f:write(m.elements[1])
    return os.rename(tos.directory() .. "/n", "/n") and "moved" or "done"
end } }
"""

# A line server in Lua; it closes at "bye", fails at "oops", and says so on three lines at "three". Its inbox: what comes of asking for more.
LINER = """
local held, open = {}, 0

local function serve(conn)
    local rest = ""
    open = open + 1
    conn:read(function(bytes, code)
        if not bytes then open = open - 1 conn:close() return end
        rest = rest .. bytes
        for line in rest:gmatch("([^\\n]*)\\n") do
            conn:write(("RELEASE: %s %s\\n"):format(line, conn:peer():match("^127.0.0.1") or conn:peer()))
            if line == "bye" then open = open - 1 conn:close() end
            if line == "oops" then open = open - 1 error("it was asked to fail") end
            if line == "hold" then held[#held + 1] = conn end
        end
        rest = rest:match("[^\\n]*$")
    end)
end

local function next_one()
    assert(tos.accept(function(conn, code, text)
        if not conn then return tos.log(("no connection: %s %s"):format(code, text)) end
        serve(conn)
        if open < 8 then next_one() else tos.timer(0.05, next_one) end
    end))
end

extension { name = "liner", privileges = PRIVILEGES, start = START and next_one, inboxes = { Liner = function(m)
    local what = m.elements[1]
    if what == "ask" then tos.accept(function(c, ...) m:reply(c and c:peer() or table.concat({ ... }, " ")) end, 0.2) return end
    if what == "many" then
        local n = 0
        while tos.accept(print) do n = n + 1 end
        return n, (select(2, tos.accept(print)))
    end
    if what == "open" then return open end
end } }
"""

# Connects to where it is told. say: a line there and one back; big: BYTES written as fast as they are taken;
# forget: connects, and keeps nothing; full: writes until it may not.
CALLER = """
local function lines_of(conn, fn)
    local rest = ""
    return conn:read(function(bytes, code, text)
        if not bytes then return fn(nil, code, text) end
        rest = rest .. bytes
        local line, more = rest:match("^([^\\n]*)\\n(.*)$")
        if line then rest = more fn(line) end
    end)
end

local does = {
    say = function(conn, m)
        lines_of(conn, function(line, code) m:reply(line or code) conn:close() end)
        return conn:write(m.elements[3] .. "\\n")
    end,
    big = function(conn, m)
        local left, full, block = m.elements[3], 0, ("x"):rep(50000)
        local function some(ok, code, text)
            if not ok then return m:fail(code, text) end
            while left > 0 do
                local done, why = conn:write(block:sub(1, left))
                if done then left = math.max(0, left - #block)
                elseif done == false then full = full + 1 assert(why == "full") return conn:flush(some)
                else return m:fail(why) end
            end
            conn:close()
            m:reply(full, (select(2, conn:write("x"))), (select(2, conn:read(print))))
        end
        some(true)
    end,
    forget = function(conn, m) m:reply("done") end,
    fail = function(conn, m)
        lines_of(conn, function(line, code, text) if line then m:reply(line) error("no more of this") end end)
        conn:write(m.elements[3] .. "\\n")
    end,
    full = function(conn, m)
        local n, ok, code = 0
        repeat
            ok, code = conn:write(("x"):rep(65536))
            n = n + (ok and 1 or 0)
        until not ok
        m:reply(n, tostring(ok), code, (select(2, conn:write(("x"):rep(300000)))))
        lines_of(conn, function() end)
    end,
}

extension { name = "caller", privileges = PRIVILEGES, inboxes = { Caller = function(m)
    local what, port = table.unpack(m.elements)
    local ok, code, text = tos.connect("127.0.0.1", port, 5, function(conn, code, text)
        if not conn then return m:fail(code, text) end
        assert(conn:peer():find("127.0.0.1", 1, true) and tostring(conn):find("tos.connection") and not getmetatable(conn))
        does[what](conn, m)
    end)
    if not ok then return nil, code, text end
end } }
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def line(port, text, timeout=30):
    """What the line server says to that."""
    with socket.create_connection(("127.0.0.1", port), timeout) as s:
        s.sendall(text.encode() + b"\n")
        return s.makefile().readline().strip()


def lines_package(fleet, release, name="Lines", **defines):
    so = compiled(fleet, f"{name}-{release}.so", source="lines.c", RELEASE=f'"{release}"', INBOX=f'"{name}"', **defines)
    return packaged(fleet, release, name=name, file=so)


def asked(fleet, *words, inbox="Lines"):
    return fleet.tos("call", inbox, *words).strip()


@pytest.fixture(scope="module")
def fleet():
    class Ours(Fleet):
        pass

    Ours.port, Ours.other, Ours.outer = free_port(), free_port(), free_port()
    with Ours(n=1) as f:
        f.shelf = os.path.join(f.path, "shelf")
        os.mkdir(f.shelf, 0o777)
        os.chmod(f.shelf, 0o777)
        with open(os.path.join(f.shelf, "there"), "w") as out:
            out.write("before")
        f.closed = os.path.join(f.path, "closed")
        os.mkdir(f.closed, 0o755)
        f.conf = os.path.join(f.home, "kernels/host0/tosd.conf")
        with open(f.conf, "a") as out:
            out.write(conf_text(QUICK) + f"""
                extender {{ privileges = "net-in net-out directory" }}
                installed "Lines" {{ listen = "127.0.0.1:{f.port}"  file_size = "1M"  property = {{"/to=Book"}} }}
                installed "Reader" {{ directory = "{f.shelf} read-only" }}
                installed "Writer" {{ directory = "{f.shelf}"  listen = "127.0.0.1:{f.port}" }}
                installed "Liner" {{ listen = "127.0.0.1:{f.other}" }}
                installed "Caller" {{ places = {{"tcp://127.0.0.1:{f.other}", "tcp://127.0.0.1:{f.outer}"}} }}
                installed "Shut" {{ directory = "{f.closed}" }}
                installed "Absent" {{ directory = "{f.path}/nowhere" }}
            """)
        f.down("host0")
        f.up()
        f.tos("principal", "add", "olga", "--role", "officer", "--here")
        f.tos("extension", "install", packaged(f, "1", name="Book", file=f.file("book.lua", BOOK)))
        yield f


@pytest.fixture(autouse=True)
def nothing_left(fleet):
    yield
    for name in rows(fleet):
        if name != "Book":
            fleet.tos("extension", "remove", name)


def booked(fleet):
    n, last = asked(fleet, "lines", inbox="Book").split("\n", 1)
    return int(n), last


def test_lines_come_in_and_are_posted(fleet):
    fleet.tos("extension", "install", lines_package(fleet, "1"))
    (row,) = rows(fleet)["Lines"]
    assert row["listen"] == f"127.0.0.1:{fleet.port}" and row["privileges"] == "net-in directory"
    assert row["directory"] == os.path.join(fleet.home, "kernels/host0/extensions/Lines")
    before = booked(fleet)[0]
    assert line(fleet.port, "hello") == "1: hello"
    wait_for(lambda: booked(fleet) == (before + 1, "1: hello"))
    assert fleet.metric("host0", "tos_extension_listeners") == 1
    assert audited(fleet, "extension-listens")[-1]["address"] == f"127.0.0.1:{fleet.port}"
    assert audited(fleet, "extension-directory")[-1]["directory"] == row["directory"]
    assert f"Lines has net-in directory, listens on 127.0.0.1:{fleet.port}, writes in " in fleet.run("doctor").stdout
    # more than it takes at a time: the others wait their turn
    many = [socket.create_connection(("127.0.0.1", fleet.port), 30) for _ in range(12)]
    for s in many:
        s.sendall(b"x\n")
    for s in many:
        assert s.makefile().readline() == "1: x\n"
        s.close()
    fleet.tos("extension", "remove", "Lines")
    wait_for(lambda: fleet.metric("host0", "tos_extension_listeners") == 0)
    with pytest.raises(ConnectionRefusedError):
        line(fleet.port, "gone")


def test_what_is_kept_in_its_directory_outlives_it(fleet):
    fleet.tos("extension", "install", lines_package(fleet, "1"))
    assert asked(fleet, "directory") == "/data" and asked(fleet, "write", "note", "kept") == "4"
    assert asked(fleet, "make", "sub") == "done" and asked(fleet, "write", "sub/note", "too") == "3"
    with open(os.path.join(rows(fleet)["Lines"][0]["directory"], "note")) as f:
        assert f.read() == "kept"
    fleet.tos("extension", "replace", lines_package(fleet, "2"))
    assert asked(fleet, "read", "note") == "kept" and asked(fleet, "write", "note", "newer") == "5"
    fleet.kill("host0", "tosd")
    wait_for(lambda: fleet.status("host0"))
    wait_for(lambda: running(fleet, "Lines") == "2")
    assert asked(fleet, "read", "note") == "newer" and line(fleet.port, "a") == "2: a"
    fleet.tos("extension", "remove", "Lines")
    # beside another one of other uid, and with its own back
    fleet.tos("extension", "install", lines_package(fleet, "1", name="Other"))
    fleet.tos("extension", "install", lines_package(fleet, "3"))
    assert asked(fleet, "read", "note") == "newer" and asked(fleet, "read", "sub/note") == "too"
    assert asked(fleet, "read", "note", inbox="Other") == "ENOENT"


def test_nothing_else_is_there(fleet):
    """Asked from inside: other paths, other sockets, what a file may become and how large it gets."""
    fleet.tos("extension", "install", lines_package(fleet, "1"))
    assert line(fleet.port, "x") == "1: x"
    assert asked(fleet, "write", "a", "x") == "1"
    for path in "/etc/passwd", "/data/../etc/passwd", fleet.conf, os.path.join(fleet.shelf, "there"):
        assert asked(fleet, "open", path) == "ENOENT"
    assert asked(fleet, "write", "/x", "x") in ("EROFS", "EACCES", "EPERM")
    assert asked(fleet, "link", "l") in ("EPERM", "EACCES") and asked(fleet, "run", "a") == "EPERM"
    assert asked(fleet, "fill", "big", "4000000") == "EFBIG" and asked(fleet, "fill", "big", "500000") == "done"
    assert asked(fleet, "tcp", str(fleet.port)) == "EPERM"
    with socket.create_connection(("127.0.0.1", fleet.port), 30):
        assert asked(fleet, "bind") == "EPERM" and asked(fleet, "accept") == "EPERM"


def test_without_the_privilege_nothing(fleet):
    fleet.tos("extension", "install", lines_package(fleet, "1", PRIVILEGES="NULL"))
    r = fleet.run("call", "Lines", "ask")
    assert r.returncode != 0 and "does not have the privilege net-in" in r.stderr
    assert asked(fleet, "directory") == "none" and asked(fleet, "open", "/data/a") == "ENOENT"
    assert asked(fleet, "make", "/data/b") in ("EPERM", "ENOENT")
    with pytest.raises(ConnectionRefusedError):
        line(fleet.port, "nobody")
    row = rows(fleet)["Lines"][0]
    assert "listen" not in row and "directory" not in row
    # with it, and no address that the configuration names
    fleet.tos("extension", "install", lines_package(fleet, "1", name="Nowhere"))
    r = fleet.run("call", "Nowhere", "ask")
    assert r.returncode != 0 and "names no address for extension Nowhere" in r.stderr
    assert audited(fleet, "listen-refused")[-1]["extension"] == "Nowhere"
    # both of a kind that exclude each other
    r = fleet.run("extension", "install", lines_package(fleet, "9", PRIVILEGES='"read-fs directory"'))
    assert r.returncode != 0 and "exclude each other" in r.stderr


def test_a_port_that_is_taken_leaves_nothing(fleet):
    package = lines_package(fleet, "1")
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", fleet.port))
        s.listen()
        refused(fleet, "install", package, says=f"127.0.0.1:{fleet.port} is in use")
        wait_for(lambda: not rows(fleet).get("Lines"))
        assert audited(fleet, "listen-refused")[-1]["code"] == "exists"
        assert audited(fleet, "extension-refused")[-1]["code"] == "exists"
    fleet.tos("extension", "install", package)
    # nor can another one have it
    refused(fleet, "install", lines_package(fleet, "1", name="Writer"), says="is in use")
    assert line(fleet.port, "x") == "1: x"


def test_no_connection_is_lost_over_replacements_and_crashes(fleet):
    fleet.tos("extension", "install", lines_package(fleet, "1"))
    said, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            said.append(line(fleet.port, "x"))

    thread = threading.Thread(target=ask)
    thread.start()
    for release in "2", "3", "4":
        fleet.tos("extension", "replace", lines_package(fleet, release))
        wait_for(lambda r=release: said[-1] == f"{r}: x", text=f"release {release} answers")
    stop.set()
    thread.join()
    assert "" not in said, said
    # one connects while it is dead, and is answered by its next life
    pid = rows(fleet)["Lines"][0]["pid"]
    assert fleet.run("call", "Lines", "crash").returncode != 0
    assert line(fleet.port, "later") == "4: later"
    assert rows(fleet)["Lines"][0]["pid"] != pid and rows(fleet)["Lines"][0]["restarts"] == 1


def test_a_directory_that_is_named(fleet):
    fleet.tos("extension", "install", lines_package(fleet, "1", name="Reader"))
    assert asked(fleet, "read", "there", inbox="Reader") == "before"
    assert asked(fleet, "write", "there", "after", inbox="Reader") == "EROFS"
    assert rows(fleet)["Reader"][0]["directory_read_only"]
    fleet.tos("extension", "install", lines_package(fleet, "1", name="Writer"))
    assert asked(fleet, "write", "there", "after", inbox="Writer") == "5"
    assert asked(fleet, "read", "there", inbox="Reader") == "after"
    refused(fleet, "install", lines_package(fleet, "1", name="Absent"), says="cannot open the directory that it was granted")
    if os.geteuid() == 0:
        refused(fleet, "install", lines_package(fleet, "1", name="Shut"), says="may not write in the directory")
    assert not rows(fleet).get("Absent") and not rows(fleet).get("Shut")


def test_properties_of_what_is_installed(fleet):
    """From the configuration, by tos set, and over replacement, reload and restart."""
    fleet.tos("extension", "install", lines_package(fleet, "1"))
    row = fleet.json("get", "/Lines/to")[0]
    assert row["value"] == "Book" and row["origin"] == "tosd.conf"
    fleet.tos("set", "/Lines/to", "Echo")
    assert asked(fleet, "to") == "Echo"
    fleet.tos("extension", "replace", lines_package(fleet, "2"))
    assert wait_for(lambda: asked(fleet, "to") == "Echo")
    fleet.kill("host0")
    wait_for(lambda: fleet.status("host0"))
    wait_for(lambda: running(fleet, "Lines") == "2")
    wait_for(lambda: asked(fleet, "to") == "Echo")
    fleet.tos("set", "/Lines/to", "--default")
    assert asked(fleet, "to") == "Book"
    r = fleet.run("set", "/Lines/most", "10")
    assert r.returncode != 0 and "from 1 to 9" in r.stderr
    with open(fleet.conf) as f:
        text = f.read()
    with open(fleet.conf, "w") as f:
        f.write(text.replace("/to=Book", "/to=Journal"))
    fleet.tos("reload")
    assert asked(fleet, "to") == "Journal"
    with open(fleet.conf, "w") as f:
        f.write(text.replace('property = {"/to=Book"}', 'property = {"/most=77"}'))
    fleet.tos("reload")
    assert asked(fleet, "to") == "Echo"  # its own default
    refused(fleet, "replace", lines_package(fleet, "3"), says='property most: "77" is no int within its bounds')
    assert running(fleet, "Lines") == "2"
    with open(fleet.conf, "w") as f:
        f.write(text)
    fleet.tos("reload")
    assert asked(fleet, "to") == "Book"


def test_in_lua_too(fleet):
    fleet.tos("extension", "install", packaged(fleet, "1", name="Shelf", file=fleet.file("shelf.lua", SHELF)))
    assert asked(fleet, "hello", inbox="Shelf") == "done" and asked(fleet, "read", inbox="Shelf") == "hello"


def lua_package(fleet, name, text, release, privileges, start="true"):
    text = text.replace("RELEASE", release).replace("PRIVILEGES", f'"{privileges}"').replace("START", start)
    return packaged(fleet, release, name=name, file=fleet.file(f"{name}-{release}.lua", text))


def called(fleet, *words):
    return fleet.json("call", "Caller", *map(str, words))["elements"]


def test_a_line_server_in_lua(fleet):
    fleet.tos("extension", "install", lua_package(fleet, "Liner", LINER, "1", "net-in"))
    assert line(fleet.other, "hello") == "1: hello 127.0.0.1"
    # more than it takes at a time; each line in order, also when they come in pieces
    many = [socket.create_connection(("127.0.0.1", fleet.other), 30) for _ in range(12)]
    for s in many:
        s.sendall(b"a\nb\nc")
    for s in many:
        f = s.makefile()
        assert f.readline() == "1: a 127.0.0.1\n" and f.readline() == "1: b 127.0.0.1\n"
        s.sendall(b"c\nbye\n")
        assert f.read() == "1: cc 127.0.0.1\n1: bye 127.0.0.1\n"  # what it wrote came before the end
        s.close()
    wait_for(lambda: asked(fleet, "open", inbox="Liner") == "0")
    # a function that fails closes what it was told of, and nothing else
    pid = rows(fleet)["Liner"][0]["pid"]
    with socket.create_connection(("127.0.0.1", fleet.other), 30) as kept, \
            socket.create_connection(("127.0.0.1", fleet.other), 30) as s:
        kept.sendall(b"hold\n")
        f = kept.makefile()
        assert f.readline() == "1: hold 127.0.0.1\n"
        s.sendall(b"oops\n")
        assert s.makefile().read() == ""
        kept.sendall(b"x\n")
        assert f.readline() == "1: x 127.0.0.1\n" and rows(fleet)["Liner"][0]["pid"] == pid
        # a next version: who is connected may finish
        thread = threading.Thread(target=fleet.tos, args=("extension", "replace", lua_package(fleet, "Liner", LINER, "2", "net-in")))
        thread.start()
        wait_for(lambda: line(fleet.other, "x") == "2: x 127.0.0.1")
        kept.sendall(b"y\nbye\n")
        assert f.read() == "1: y 127.0.0.1\n1: bye 127.0.0.1\n"
        thread.join()
    # and the end of all of it
    with socket.create_connection(("127.0.0.1", fleet.other), 30) as s:
        s.sendall(b"hold\n")
        f = s.makefile()
        assert f.readline() == "2: hold 127.0.0.1\n"
        assert asked(fleet, "many", inbox="Liner").split() == ["30", "limit"]  # one is open, one was asked for
        fleet.tos("extension", "remove", "Liner")
        assert f.read() == ""


def test_connections_out_in_lua(fleet):
    fleet.tos("extension", "install", lua_package(fleet, "Liner", LINER, "1", "net-in"))
    fleet.tos("extension", "install", lua_package(fleet, "Caller", CALLER, "1", "net-out"))
    assert called(fleet, "say", fleet.other, "hello") == ["1: hello 127.0.0.1"]
    assert called(fleet, "fail", fleet.other, "hello") == ["1: hello 127.0.0.1"]
    for _ in range(40):  # those it forgets are closed before there are too many
        called(fleet, "forget", fleet.other)
    assert called(fleet, "say", fleet.other, "again") == ["1: again 127.0.0.1"]
    r = fleet.run("call", "Caller", "say", str(fleet.port), "x")
    assert r.returncode != 0 and f"no place of extension Caller is 127.0.0.1 port {fleet.port}" in r.stderr
    assert audited(fleet, "connect-refused")[-1]["extension"] == "Caller"
    r = fleet.run("call", "Caller", "say", str(fleet.outer), "x")  # nobody is there
    assert r.returncode != 0 and "refused" in r.stderr
    r = fleet.run("call", "Caller", "say", "0", "x")
    assert r.returncode != 0 and "no port" in r.stderr
    assert rows(fleet)["Caller"][0]["restarts"] == 0


def test_what_waits_to_be_sent_in_lua_is_bounded(fleet):
    fleet.tos("extension", "install", lua_package(fleet, "Caller", CALLER, "1", "net-out"))
    with socket.create_server(("127.0.0.1", fleet.outer)) as server:
        assert called(fleet, "full", fleet.outer) == [4, "false", "full", "too-large"]
        s, _ = server.accept()
        with s:
            got = 0
            while got < 4 * 65536:
                got += len(s.recv(65536))
            assert got == 4 * 65536
        got = []

        def read_all():
            s, _ = server.accept()
            with s:
                while n := len(s.recv(65536)):
                    got.append(n)

        thread = threading.Thread(target=read_all)
        thread.start()
        full, write, read = called(fleet, "big", fleet.outer, 5000001)
        thread.join()
        assert sum(got) == 5000001 and full >= 19 and write == read == "closed"


def test_without_the_privilege_nothing_in_lua(fleet):
    fleet.tos("extension", "install", lua_package(fleet, "Liner", LINER, "1", "net-out", "nil"))
    assert asked(fleet, "ask", inbox="Liner") == "denied it does not have the privilege net-in"
    with pytest.raises(ConnectionRefusedError):
        line(fleet.other, "nobody")
    fleet.tos("extension", "install", lua_package(fleet, "Caller", CALLER, "1", "net-in"))
    r = fleet.run("call", "Caller", "say", str(fleet.other), "x")
    assert r.returncode == 3 and "it does not have the privilege net-out" in r.stderr
    # with it, and nobody comes
    fleet.tos("extension", "remove", "Liner")
    fleet.tos("extension", "install", lua_package(fleet, "Liner", LINER, "2", "net-in", "nil"))
    assert asked(fleet, "ask", inbox="Liner").startswith("timed-out")
