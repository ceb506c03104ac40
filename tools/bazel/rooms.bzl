"""What the BUILD files share: a folder is a room, one library of its modules.

Tests of a folder run in one process, because importing TensorFlow takes longer
than most of them do: `tests/run.py` collects them.
"""

load("@rules_python//python:defs.bzl", "py_binary", "py_library", "py_test")

def _folder():
    return native.package_name().split("/")[-1]

def room(name = None, srcs = None, deps = [], **kwargs):
    """The modules of a folder as one library.

    Args:
      name: name of the library; without one that of the folder.
      srcs: its files; without them all Python files of the folder.
      deps: the rooms that it stands on.
      **kwargs: passed on to py_library.
    """
    py_library(
        name = name or _folder(),
        srcs = srcs or native.glob(["*.py"]),
        visibility = ["//visibility:public"],
        deps = deps,
        **kwargs
    )

def programs(names, deps = None):
    """Modules of a room that can be run, each as //folder:name.

    Args:
      names: the modules, without their endings.
      deps: what they import; without it the folder's room.
    """
    for name in names:
        program(name = name, main = name + ".py", deps = deps)

def program(name = None, main = "__main__.py", deps = None, **kwargs):
    """One program; a folder with a `__main__.py` is //folder.

    Args:
      name: name of the target; without one that of the folder.
      main: its file.
      deps: what it imports; without it the folder's room.
      **kwargs: passed on to py_binary.
    """
    py_binary(
        name = name or _folder(),
        srcs = [main],
        main = main,
        visibility = ["//visibility:public"],
        deps = deps or [":" + (_folder() if name else "lib")],
        **kwargs
    )

def tests_of(folder, deps, only = [], apart = [], also = [], name = None, **kwargs):
    """The test files of a folder below tests/ as one target.

    Args:
      folder: the folder, from tests/.
      deps: what the tests import.
      only: those of its test files that the target holds; all without any.
      apart: those that it does not hold, as they are targets of their own.
      also: folders whose test files it holds as well.
      name: name of the target; without one FOLDER_test, since the folder's own
        is taken by the folder.
      **kwargs: passed on to py_test.
    """
    files = native.glob([one + "/*.py" for one in [folder] + also])
    tests = [
        file
        for file in [folder + "/" + name + ".py" for name in only] or files
        if file.endswith("_test.py") and
           file.split("/")[-1][:-len(".py")] not in apart
    ]
    py_test(
        name = name or folder.replace("/", "_") + "_test",
        size = kwargs.pop("size", "large"),
        srcs = ["run.py"] + tests + [
            file
            for file in files
            if not file.endswith("_test.py")
        ],
        args = ["tests/" + file for file in tests],
        main = "run.py",
        deps = [":testing"] + deps,
        **kwargs
    )
