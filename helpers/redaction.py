"""Redaction: secrets are taken out of texts, such as messages of other libraries, before they are shown or kept."""

import json
import os
import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

_KEYS = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS)(_|$)", re.IGNORECASE)
_USER_NAMES = re.compile(r"^(KAGGLE_USERNAME|username)$")
_USER_INFO = re.compile(r"(?<=://)[^\s/?#'\"]+@")
_QUERY = re.compile(r"\?[\w.%-]+=[^\s'\")>,;]*")  # where signed addresses have their signature
_HEADER = re.compile(r"\b(basic|bearer) [\w.~+/=-]{6,}", re.IGNORECASE)
_LEAST = 8  # characters; what is shorter is no key, and may be part of any word
_HIDDEN = "***"


def hide_secrets(text):
    """Hide what a message of another library may tell: as `hide_keys`, and user names and queries of addresses.

    Examples
    --------
    >>> hide_secrets("no connection to http://me:word@proxy:3128 (for https://host/file?signature=0a1b)")
    'no connection to http://***@proxy:3128 (for https://host/file?***)'
    """
    text = _HEADER.sub(rf"\1 {_HIDDEN}", _QUERY.sub(f"?{_HIDDEN}", _USER_INFO.sub(f"{_HIDDEN}@", text)))
    return _hide(hide_keys(text), _USER_NAMES, before=r"(?<![\w/])")  # in a path it is the name of a folder


def hide_keys(text):
    """Hide the keys, tokens and passwords of this process's environment, and those of Kaggle's files, in any text."""
    return _hide(text, _KEYS)


def _hide(text, names, before=""):
    values = [value for name, value in _list_settings() if names.search(name)]
    forms = {form for value in values for form in (value, quote(value, safe=""), json.dumps(value)[1:-1])}
    for form in sorted(forms, key=len, reverse=True):
        if len(form) >= _LEAST:
            text = re.sub(before + re.escape(form), _HIDDEN, text)
    return text


def _list_settings():
    """List names and values of the environment, of its proxies' passwords, and of the files in Kaggle's folder."""
    found = [(name, value.strip()) for name, value in os.environ.items()]
    addresses = [_USER_INFO.search(value) for name, value in found]
    found += [("PASSWORD", address[0][:-1].partition(":")[2]) for address in addresses if address]
    paths = [Path(os.environ[name]) for name in ("KAGGLE_API_TOKEN", "KAGGLE_API_V1_TOKEN") if os.environ.get(name)]
    with suppress(OSError, RuntimeError):  # there is no home, or it cannot be read
        folder = Path(os.environ.get("KAGGLE_CONFIG_DIR") or "~/.kaggle").expanduser()
        paths += [*folder.glob("*.json"), *folder.glob("access_token*")]
    for path in paths:
        with suppress(OSError, ValueError, AttributeError):  # it cannot be read, or holds no names
            text = path.read_text(encoding="utf-8").strip()
            values = json.loads(text) if path.suffix == ".json" else {"TOKEN": text}
            found += [(name, value) for name, value in values.items() if isinstance(value, str)]
    return found
