"""The Python environment as a module extension, which MODULE.bazel names.

Bazel 4 to 6 never load this file: they know no module_extension.
"""

load(":python_env.bzl", "python_env_repository")

def _python_impl(_ctx):
    python_env_repository(
        name = "vim_tf_python",
        data_lock = Label("//:requirements-data.lock"),
        lock = Label("//:requirements.lock"),
        new_lock = Label("//:requirements-new.lock"),
    )

python = module_extension(implementation = _python_impl)
