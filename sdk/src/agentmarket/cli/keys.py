"""Where the key that pays the gas comes from: a variable, a private file or an encrypted keystore. Never an argument.

No message here repeats what was read.
"""

import json
import os
import stat
from pathlib import Path

import click
from eth_account import Account
from eth_account.signers.local import LocalAccount

from agentmarket.chain.errors import Denied

KEY, PASSWORD = "RESCUE_KEY", "RESCUE_PASSWORD"
_LONGEST = 64 * 1024


def account(key_file: Path | None) -> LocalAccount | None:
    """The account that sends: of the file where one is named, else of RESCUE_KEY; None without either. Raises Denied."""
    if key_file is not None:
        return _of_text(_read(key_file), f"{key_file}")
    text = os.environ.get(KEY, "").strip()
    return _of_text(text, KEY) if text else None


def sender(key_file: Path | None) -> LocalAccount:
    """The same, where there must be one."""
    found = account(key_file)
    if found is None:
        raise Denied(f"--send needs a key with some of the chain's coin for gas: {KEY}, or --key-file with mode 0600.")
    return found


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(_LONGEST)
    except OSError as error:
        raise Denied(f"{path} cannot be read: {error.strerror}.") from None
    if mode & 0o077:
        raise Denied(f"{path} is open to others (mode {mode:04o}): chmod 600 it, and think of the key as known.")
    return content.decode("utf-8", "replace").strip()


def _of_text(text: str, origin: str) -> LocalAccount:
    try:
        key = _decrypted(text) if text.startswith("{") else bytes.fromhex(text.removeprefix("0x"))
        if len(key) == 32:
            opened: LocalAccount = Account.from_key(key)
            return opened
    except Exception:  # noqa: BLE001 - whatever a library says of a key may hold the key
        raise Denied(f"{origin} does not hold a key, or its password is another.") from None
    raise Denied(f"{origin} does not hold 64 hex digits, nor an encrypted keystore.")


def _decrypted(text: str) -> bytes:
    password = os.environ.get(PASSWORD)
    if password is None:
        password = click.prompt("Password of the keystore", hide_input=True, err=True)
    return bytes(Account.decrypt(json.loads(text), password))
