"""Compares the locks with pyproject.toml, without a network: each requirement pinned, in range and hashed."""

import re
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
wanted = {"requirements.txt": project["dependencies"]}
wanted["requirements-dev.txt"] = project["dependencies"] + project["optional-dependencies"]["dev"]
wrong = []
for name, requirements in wanted.items():
    text = Path(name).read_text(encoding="utf-8")
    pins = {canonicalize_name(found[1]): found[2] for found in re.finditer(r"(?m)^([\w.-]+)==([^\s;]+)", text)}
    for requirement in map(Requirement, requirements):
        version = pins.get(canonicalize_name(requirement.name))
        if version is None or not requirement.specifier.contains(version):
            wrong.append(f"{name}: {requirement} is {'missing' if version is None else f'pinned at {version}'}")
    # A package may be pinned more than once, for one Python each.
    unhashed = len(re.findall(r"(?m)^[\w.-]+==", text)) - len(
        re.findall(r"(?m)^[\w.-]+==[^\n]*\\\n\s+--hash=sha256:", text)
    )
    if unhashed:
        wrong.append(f"{name}: {unhashed} packages have no hash")
sys.exit("\n".join([*wrong, "Run: make lock"]) if wrong else 0)
