"""Lets Bazel 4 to 6 work without a network.

Their Python rules are built in, so @rules_python, which BUILD files load as
later ones have it, is a file that names those. Bazel 7 and later read
MODULE.bazel instead, and never this.

Every Bazel declares @rules_cc, @rules_java and @remote_coverage_tools as
archives on the network, and every Python rule reaches @rules_cc through the
C++ toolchain. Debian's bazel-bootstrap is as old as Bazel 4.2.3, where the
rules of both are still built in, so files that name them are all it needs.
Official releases are left alone.
"""

_CC_RULES = [
    "cc_binary",
    "cc_library",
    "cc_test",
    "cc_toolchain",
    "cc_toolchain_suite",
]

_PYTHON_RULES = [
    "py_binary",
    "py_library",
    "py_runtime",
    "py_test",
]

_PYTHON_BUILD = """\
alias(
    name = "toolchain_type",
    actual = "@bazel_tools//tools/python:toolchain_type",
    visibility = ["//visibility:public"],
)
"""

_PYTHON_DEFS = """\
load("@bazel_tools//tools/python:toolchain.bzl", _pair = "py_runtime_pair")
py_runtime_pair = _pair
"""

_JAVA_RULES = [
    "java_binary",
    "java_import",
    "java_library",
    "java_runtime",
    "java_toolchain",
]

def _generated_repository_impl(ctx):
    ctx.file("WORKSPACE", 'workspace(name = "%s")\n' % ctx.name)
    for path, content in ctx.attr.files.items():
        ctx.file(path, content)

_generated_repository = repository_rule(
    implementation = _generated_repository_impl,
    attrs = {"files": attr.string_dict(doc = "Contents by path.")},
    doc = "A repository made of the given files.",
)

def _native_rules(name, package, rules, build = "", defs = ""):
    _generated_repository(
        name = name,
        files = {
            package + "/BUILD": build,
            package + "/defs.bzl": defs + "".join(
                ["%s = native.%s\n" % (rule, rule) for rule in rules],
            ),
        },
    )

def distro_bazel():
    """Declares stand-ins for what Bazel would download."""
    _native_rules(
        "rules_python",
        "python",
        _PYTHON_RULES,
        _PYTHON_BUILD,
        _PYTHON_DEFS,
    )
    if native.bazel_version:
        return  # An official release: Debian's calls itself "".
    _native_rules("rules_cc", "cc", _CC_RULES)
    _native_rules("rules_java", "java", _JAVA_RULES)
    _generated_repository(
        name = "remote_coverage_tools",
        files = {
            "BUILD": "filegroup(\n" +
                     '    name = "coverage_report_generator",\n' +
                     '    visibility = ["//visibility:public"],\n' +
                     ")\n",
        },
    )
