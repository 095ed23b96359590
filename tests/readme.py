"""What the README holds: its fenced blocks, and the commands that it names."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text()


def block(language: str, first_words: str) -> list[str]:
    """The lines of the fenced block that begins with these words, without their indentation."""
    for found in re.finditer(r"^( *)```(\w+)\n(.*?)^ *```", README, re.DOTALL | re.MULTILINE):
        lines = [line.removeprefix(found[1]) for line in found[3].splitlines()]
        if found[2] == language and lines[0].startswith(first_words):
            return lines
    raise AssertionError(f"README has no {language} block that begins with {first_words}")


def redis_users(password: str) -> dict[str, list[str]]:
    """The Redis users that it tells to make: name -> rules, as `ACL SETUSER` takes them."""
    text = " ".join(block("text", "ACL SETUSER cdc_reader")).replace("PASSWORD", password)
    users = [re.findall(r"\([^)]*\)|\S+", line) for line in text.split("ACL SETUSER ")[1:]]
    return {name: rules for name, *rules in users}


def named_commands() -> list[list[str]]:
    """Every `cdc ...` and `cdc-sink ...` that stands in code, as words."""
    fenced = re.findall(r"^ *```sh\n(.*?)^ *```", README, re.DOTALL | re.MULTILINE)
    lines = [line.strip() for text in fenced for line in text.splitlines()]
    found = [line for line in lines if re.match(r"cdc(-sink)? ", line)] + re.findall(r"`(cdc(?:-sink)? [^`]+)`", README)
    return [shlex.split(command.split("#")[0]) for command in found]
