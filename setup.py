"""What pyproject.toml has no settled words for: the compiled functions.

They are built where there is a C compiler; without one the installation succeeds all the same, and Python does their
work, only slower. One build serves every Python from 3.11 on.
"""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "transforms._rows",
            ["transforms/_rows.c", "transforms/_items.c"],
            depends=["transforms/_rows.h"],
            optional=True,
            py_limited_api=True,
        ),
        Extension(
            "sinks._entries",
            ["sinks/_entries.c", "sinks/_replies.c"],
            depends=["sinks/_entries.h"],
            optional=True,
            py_limited_api=True,
        ),
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
