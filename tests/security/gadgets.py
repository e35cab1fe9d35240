"""Pickles that would run something if anybody let them. Each is a stream, and the name that must be told, if any.

``CANARY`` stands for the path of a file that a gadget which ran would leave.
"""

from __future__ import annotations

import pickle
import struct
from typing import NamedTuple

from streams import P5, args, called, data, made, name, stream, text

__all__ = ["CANARY", "GADGETS", "Gadget"]

CANARY = "@CANARY@" * 25
"""As long as it is, so that it can be replaced by a path without changing any length."""

_TOUCH = text(f"touch {CANARY}")
_CODE = text(f"open({CANARY!r}, 'w')")


class Gadget(NamedTuple):
    """A hostile stream; ``named`` is what the refusal says, empty where there is no name to tell."""

    stream: bytes
    named: str = ""


GADGETS: dict[str, Gadget] = {}


def _add(title: str, stream: bytes, named: str = "") -> None:
    assert title not in GADGETS, title
    GADGETS[title] = Gadget(stream, named)


# Calls of well-known functions, by the way that protocol 5 has for it.
_CALLS: list[tuple[str, str, tuple[bytes, ...]]] = [
    ("os", "system", (_TOUCH,)),
    ("posix", "system", (_TOUCH,)),
    ("nt", "system", (_TOUCH,)),
    ("os", "popen", (_TOUCH,)),
    ("os", "execl", (text("/bin/sh"), text("sh"), text("-c"), _TOUCH)),
    ("os", "spawnlp", (data(0), text("touch"), text("touch"), text(CANARY))),
    ("os", "posix_spawn", (text("/bin/touch"), data(["touch", CANARY]), data({}))),
    ("os", "remove", (text(CANARY),)),
    ("os", "putenv", (text("CKPTSTORE_CANARY"), text("1"))),
    ("os", "chdir", (text("/"),)),
    ("os", "kill", (data(0), data(0))),
    ("os", "_exit", (data(0),)),
    ("os", "mkdir", (text(CANARY),)),
    ("os", "symlink", (text("/"), text(CANARY))),
    ("subprocess", "Popen", (data(["touch", CANARY]),)),
    ("subprocess", "check_output", (data(["touch", CANARY]),)),
    ("subprocess", "getoutput", (_TOUCH,)),
    ("_posixsubprocess", "fork_exec", (data([]),)),
    ("pty", "spawn", (data(["touch", CANARY]),)),
    ("commands", "getoutput", (_TOUCH,)),
    ("asyncio", "create_subprocess_shell", (_TOUCH,)),
    ("multiprocessing.util", "spawnv_passfds", (data(b"/bin/touch"), data([b"touch"]), data([]))),
    ("builtins", "eval", (_CODE,)),
    ("builtins", "exec", (_CODE,)),
    ("builtins", "compile", (_CODE, text("x"), text("exec"))),
    ("builtins", "__import__", (text("antigravity"),)),
    ("builtins", "open", (text(CANARY), text("w"))),
    ("builtins", "getattr", (name("builtins", "str"), text("format"))),
    ("builtins", "setattr", (name("builtins", "str"), text("format"), data(1))),
    ("builtins", "delattr", (name("collections", "Counter"), text("update"))),
    ("builtins", "vars", (name("collections", "Counter"),)),
    ("builtins", "globals", ()),
    ("builtins", "locals", ()),
    ("builtins", "breakpoint", ()),
    ("builtins", "input", ()),
    ("builtins", "exit", ()),
    ("builtins", "memoryview", (data(b"x"),)),
    ("builtins", "map", (name("os", "system"), data([f"touch {CANARY}"]))),
    ("builtins", "filter", (name("os", "system"), data([f"touch {CANARY}"]))),
    ("builtins", "type", (text("X"), args(), data({}))),
    ("builtins", "super", ()),
    ("builtins", "property", ()),
    ("__builtin__", "eval", (_CODE,)),
    ("io", "open", (text(CANARY), text("w"))),
    ("_io", "FileIO", (text(CANARY), text("w"))),
    ("io", "open_code", (text("/etc/passwd"),)),
    ("codecs", "open", (text(CANARY), text("w"))),
    ("_codecs", "encode", (text("x"), text("rot13"))),
    ("pathlib", "Path", (text("/"),)),
    ("pathlib", "PosixPath.write_text", (text(CANARY), text("x"))),
    ("shutil", "rmtree", (text(CANARY),)),
    ("shutil", "copyfile", (text("/etc/hostname"), text(CANARY))),
    ("tempfile", "mktemp", ()),
    ("logging", "FileHandler", (text(CANARY),)),
    ("logging.config", "_resolve", (text("os.system"),)),
    ("logging.config", "listen", ()),
    ("socket", "create_connection", (data(("127.0.0.1", 9)),)),
    ("socket", "socket", ()),
    ("urllib.request", "urlopen", (text("http://127.0.0.1:9/"),)),
    ("urllib.request", "urlretrieve", (text("http://127.0.0.1:9/"), text(CANARY))),
    ("http.client", "HTTPConnection", (text("127.0.0.1"),)),
    ("ftplib", "FTP", (text("127.0.0.1"),)),
    ("smtplib", "SMTP", (text("127.0.0.1"),)),
    ("webbrowser", "open", (text("http://127.0.0.1:9/"),)),
    ("ctypes", "CDLL", (text("libc.so.6"),)),
    ("ctypes", "string_at", (data(0),)),
    ("ctypes.util", "find_library", (text("c"),)),
    ("_ctypes", "PyObj_FromPtr", (data(0),)),
    ("importlib", "import_module", (text("antigravity"),)),
    ("importlib.machinery", "SourceFileLoader", (text("x"), text("/x.py"))),
    ("imp", "load_source", (text("x"), text("/x.py"))),
    ("zipimport", "zipimporter", (text("/x.zip"),)),
    ("pkgutil", "resolve_name", (text("os:system"),)),
    ("pydoc", "locate", (text("os.system"),)),
    ("pydoc", "pipepager", (text("x"), _TOUCH)),
    ("runpy", "run_path", (text(CANARY),)),
    ("runpy", "_run_code", (_CODE, data({}))),
    ("pip", "main", (data(["install", "x"]),)),
    ("ensurepip", "bootstrap", ()),
    ("site", "addsitedir", (text("/"),)),
    ("code", "interact", ()),
    ("pdb", "run", (_CODE,)),
    ("bdb", "Bdb.run", (_CODE,)),
    ("cProfile", "run", (_CODE,)),
    ("timeit", "timeit", (_CODE,)),
    ("trace", "Trace.run", (_CODE,)),
    ("doctest", "debug_script", (_CODE,)),
    ("idlelib.run", "Executive", ()),
    ("test.support.script_helper", "assert_python_ok", ()),
    ("functools", "partial", (name("os", "system"), _TOUCH)),
    ("functools", "reduce", (name("os", "system"), data([]))),
    ("functools", "singledispatch", (name("os", "system"),)),
    ("operator", "methodcaller", (text("system"), _TOUCH)),
    ("operator", "attrgetter", (text("__class__.__base__"),)),
    ("operator", "itemgetter", (data(0),)),
    ("_operator", "call", (name("os", "system"), _TOUCH)),
    ("itertools", "starmap", (name("os", "system"), data([(f"touch {CANARY}",)]))),
    ("types", "CodeType", ()),
    ("types", "FunctionType", (data(None), data({}))),
    ("types", "MethodType", (name("os", "system"), _TOUCH)),
    ("types", "DynamicClassAttribute", ()),
    ("marshal", "loads", (data(b"N"),)),
    ("pickle", "loads", (data(b"cos\nsystem\n."),)),
    ("_pickle", "Unpickler", ()),
    ("shelve", "open", (text(CANARY),)),
    ("dbm", "open", (text(CANARY), text("c"))),
    ("sqlite3", "connect", (text(CANARY),)),
    ("sys", "exit", ()),
    ("sys", "setrecursionlimit", (data(10),)),
    ("sys", "_getframe", ()),
    ("gc", "get_objects", ()),
    ("signal", "raise_signal", (data(15),)),
    ("threading", "Thread", ()),
    ("atexit", "register", (name("os", "system"), _TOUCH)),
    ("weakref", "finalize", (data([]), name("os", "system"))),
    ("copyreg", "_reconstructor", (name("subprocess", "Popen"), name("builtins", "object"), data(None))),
    ("copyreg", "__newobj__", (name("subprocess", "Popen"),)),
    ("copyreg", "add_extension", (text("os"), text("system"), data(9))),
    ("random", "SystemRandom", ()),
    ("random", "_os.system", (_TOUCH,)),
    ("random", "_urandom", (data(1),)),
    ("re", "_compile", (text("(a+)+"), data(0))),
    ("uuid", "os.system", (_TOUCH,)),
    ("uuid", "_load_system_functions", ()),
    ("argparse", "ArgumentParser", ()),
    ("argparse", "FileType", (text("w"),)),
    ("decimal", "setcontext", (data(None),)),
    ("zoneinfo", "reset_tzpath", (data(["/"]),)),
    ("collections", "namedtuple", (text("X"), text("a"))),
    ("collections", "_sys.exit", ()),
    ("enum", "Enum", (text("X"), text("a"))),
    ("dataclasses", "make_dataclass", (text("X"), data(["a"]))),
    ("unittest.mock", "_importer", (text("antigravity"),)),
    ("numpy", "load", (text(CANARY),)),
    ("numpy", "fromfile", (text(CANARY),)),
    ("numpy", "memmap", (text(CANARY),)),
    ("numpy", "frompyfunc", (name("os", "system"), data(1), data(1))),
    ("numpy", "vectorize", (name("os", "system"),)),
    ("numpy.testing._private.utils", "runstring", (_CODE, data({}))),
    ("numpy.f2py.crackfortran", "myeval", (_CODE,)),
    ("numpy.lib.npyio", "DataSource", ()),
    ("torch", "load", (text(CANARY),)),
    ("torch.hub", "load", (text("a/b"), text("c"))),
    ("torch.hub", "load_state_dict_from_url", (text("http://127.0.0.1:9/"),)),
    ("torch.storage", "_load_from_bytes", (data(b"x"),)),
    ("torch.jit", "load", (text(CANARY),)),
    ("torch.jit._script", "RecursiveScriptModule", ()),
    ("torch.serialization", "load", (text(CANARY),)),
    ("torch.utils.cpp_extension", "load_inline", (text("x"), text("y"))),
    ("torch.ops", "load_library", (text("/x.so"),)),
    ("torch.fx.graph_module", "reduce_graph_module", (data({}), _CODE)),
    ("torch._utils", "_rebuild_wrapper_subclass", ()),
    ("torch._C", "_jit_set_profiling_mode", (data(True),)),
    ("torch.nn.modules.module", "_WrappedHook", (name("os", "system"),)),
    ("torch.nn.modules.module", "register_module_forward_hook", (name("os", "system"),)),
    ("torch.distributed.rpc.internal", "_run_function", (name("os", "system"),)),
    ("pandas", "read_pickle", (text(CANARY),)),
    ("pandas.core.computation.eval", "eval", (_CODE,)),
    ("joblib", "load", (text(CANARY),)),
    ("cloudpickle", "loads", (data(b"x"),)),
    ("dill", "loads", (data(b"x"),)),
    ("yaml", "unsafe_load", (text("!!python/object/apply:os.system [x]"),)),
    ("ckptstore.serializers.pickling", "load_unit", (data(b"x"),)),
]
for _module, _name, _parts in _CALLS:
    _add(f"{_module}.{_name} called", stream(called(_module, _name, *_parts)), f"{_module}.{_name}")

# Other ways to get at os.system.
_SYSTEM = name("os", "system")
_OLD = b"cos\nsystem\n"
_ARGS = b"(V" + f"touch {CANARY}".encode() + b"\n"
_add("GLOBAL of protocol 0", _OLD + _ARGS + b"tR.", "os.system")
_add("GLOBAL of protocol 2", b"\x80\x02" + _OLD + _ARGS + b"tR.", "os.system")
_add("GLOBAL in protocol 5", P5 + _OLD + _ARGS + b"tR.", "os.system")
_add("GLOBAL before PROTO", _OLD + P5 + _ARGS + b"tR.", "os.system")
_add("INST", _ARGS + b"ios\nsystem\n.", "os.system")
_add("INST in protocol 5", P5 + _ARGS + b"ios\nsystem\n.", "os.system")
_add("INST of an allowed class", P5 + b"(icollections\nOrderedDict\n.", "names or calls")
_add("OBJ", b"(" + _OLD + _ARGS[1:] + b"o.", "os.system")
_add("OBJ in protocol 5", P5 + b"(" + _SYSTEM + _TOUCH + b"o.", "os.system")
_add("NEWOBJ", stream(made("os", "system", _TOUCH)), "os.system")
_add("NEWOBJ_EX", stream(_SYSTEM, args(_TOUCH), data({}), pickle.NEWOBJ_EX), "os.system")
_add(
    "NEWOBJ_EX with names",
    stream(name("subprocess", "Popen"), args(), data({"args": ["touch", CANARY]}), pickle.NEWOBJ_EX),
    "subprocess.Popen",
)
_add("EXT1", P5 + pickle.EXT1 + b"\xf0" + args(_TOUCH) + b"R.", "extension 240")
_add("EXT2", P5 + pickle.EXT2 + b"\xf0\x00" + args(_TOUCH) + b"R.", "extension 240")
_add("EXT4", P5 + pickle.EXT4 + b"\xf0\x00\x00\x00" + args(_TOUCH) + b"R.", "extension 240")
_add("EXT1 of protocol 2", b"\x80\x02" + pickle.EXT1 + b"\xf0" + _ARGS + b"tR.", "extension 240")
_add("PERSID", b"Pos.system\n.", "names or calls")
_add("PERSID in protocol 5", P5 + b"Pos.system\n.", "names or calls")
_add("BINPERSID of a text", stream(text("os.system"), pickle.BINPERSID))
_add("a dotted name", stream(called("os", "path.os.system", _TOUCH)), "os.path.os.system")
_add(
    "a dotted name of an allowed class",
    stream(called("collections", "OrderedDict.fromkeys", data([1]))),
    "collections.OrderedDict.fromkeys",
)
_add(
    "the globals of an allowed class",
    stream(name("collections", "Counter.update.__globals__")),
    "collections.Counter.update.__globals__",
)
_add(
    "a module in a module", stream(called("collections", "_sys.modules", _TOUCH)), "collections._sys.modules"
)
_add("a module as a name", stream(name("os", "path")), "os.path")
_add("a name with a trailing space", stream(called("collections", "OrderedDict ")), "OrderedDict ")
_add("a name with a NUL", stream(called("os\0", "system", _TOUCH)), "system")
_add("a name in another case", stream(called("OS", "system", _TOUCH)), "OS.system")
_add("an empty module", stream(called("", "system", _TOUCH)), "system")
_add("an empty name", stream(called("os", "")), "os.")
_add("a submodule as a package", stream(called("numpy.os", "system", _TOUCH)), "numpy.os.system")
_add("a module that walks upwards", stream(called("..os", "system", _TOUCH)), "..os.system")
_add("__main__", stream(called("__main__", "GADGETS")), "__main__.GADGETS")
_add(
    "a name from the memo",
    stream(
        text("system"),
        pickle.MEMOIZE,
        pickle.POP,
        text("os"),
        pickle.BINGET,
        b"\0",
        pickle.STACK_GLOBAL,
        args(_TOUCH),
        pickle.REDUCE,
    ),
    "os.system",
)
_add(
    "a module from the memo",
    stream(
        text("os"),
        pickle.MEMOIZE,
        text("system"),
        pickle.MEMOIZE,
        data(None),
        pickle.POP,
        pickle.POP,
        pickle.POP,
        pickle.BINGET,
        b"\0",
        pickle.BINGET,
        b"\1",
        pickle.STACK_GLOBAL,
        args(_TOUCH),
        pickle.REDUCE,
    ),
    "os.system",
)
_add(
    "a name below a decoy",
    stream(
        text("os"), text("system"), text("list"), pickle.POP, pickle.STACK_GLOBAL, args(_TOUCH), pickle.REDUCE
    ),
    "os.system",
)
_add(
    "a name out of a tuple",
    stream(
        text("os"),
        text("system"),
        pickle.TUPLE2,
        pickle.POP,
        text("os"),
        data(1),
        pickle.POP,
        text("system"),
        data(1),
        pickle.POP,
        pickle.STACK_GLOBAL,
    ),
)
_add("a name of bytes", stream(data(b"os"), data(b"system"), pickle.STACK_GLOBAL))
_add("a name of numbers", stream(data(1), data(2), pickle.STACK_GLOBAL))
_add(
    "a long name",
    stream(
        text("os"),
        pickle.BINUNICODE + struct.pack("<I", 6) + b"system",
        pickle.STACK_GLOBAL,
        args(_TOUCH),
        pickle.REDUCE,
    ),
    "os.system",
)
_add("the longest name", stream(text("os"), text("s" * 70_000), pickle.STACK_GLOBAL))
_add(
    "a name in 8 bytes of length",
    stream(
        text("os"),
        pickle.BINUNICODE8 + struct.pack("<Q", 6) + b"system",
        pickle.STACK_GLOBAL,
        args(_TOUCH),
        pickle.REDUCE,
    ),
    "os.system",
)
_add("a name of protocol 0", P5 + b"Vos\nVsystem\n" + pickle.STACK_GLOBAL + args(_TOUCH) + b"R.", "os.system")
_add("a name written by DUP", P5 + text("os") + b"2" + pickle.STACK_GLOBAL + b".")
_add("after the end", stream(data(None)) + stream(called("os", "system", _TOUCH)))
_add("a second stream", stream(data(None)) * 2)
