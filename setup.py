"""Map the top-level folders onto the import package (everything else is in pyproject.toml)."""

from setuptools import find_packages, setup

FOLDERS = ("server", "client", "compile", "fleet", "hardware", "examples")

packages = ["hedgerow"]
for folder in FOLDERS:
    packages += [f"hedgerow.{folder}", *(f"hedgerow.{folder}.{sub}" for sub in find_packages(folder))]

setup(
    packages=packages,
    package_dir={"hedgerow": "src/hedgerow", **{f"hedgerow.{name}": name for name in FOLDERS}},
)
