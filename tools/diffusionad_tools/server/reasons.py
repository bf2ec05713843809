"""Find in a Triton log why the server did not start, in a line or two."""

from __future__ import annotations

import re

from diffusionad_tools.server.ports import taken

# Logged as: E1124 03:54:25.465842 4717 file.cc:642] "failed to load 'm' version 1: Internal: ..."
_ERROR = re.compile(r'^E\d{4} [^\]]*\] "(?P<message>.*)"$')
_FAILED_TO_LOAD = re.compile(
    r"failed to load '(?P<model>[^']+)' version (?P<version>\d+): (?P<why>.+)"
)
_POLL_FAILED = re.compile(r"Poll failed for model directory '(?P<model>[^']+)': (?P<why>.+)")
_TAKEN = re.compile(
    r"failed to start (?P<protocol>\w+) service: .*'(?P<address>.+):(?P<port>\d+)' already in use"
)
_LAST_WORD = re.compile(r"^error: (?P<why>.+)$")
_PYTHON_TRACE = re.compile(r"(\\n)*\s*At:.*$")  # the stub's own stack, of no use to a user
_STATUS = re.compile(
    r"^(Internal|Invalid argument|Not found|Unavailable|Unsupported): (ModelLoadError: )?"
)
_NO_DESCRIPTORS = "Too many open files"
_SHOWN = 3


def failure_reason(log: str) -> str | None:
    """Return the server's own reason for failing, or None if its log gives none."""
    messages = [m["message"] for line in log.splitlines() if (m := _ERROR.match(line))]
    reasons = dict.fromkeys(r for message in messages if (r := _model_failure(message)))
    if reasons:
        shown = list(reasons)[:_SHOWN]
        if len(reasons) > _SHOWN:
            shown.append(f"and {len(reasons) - _SHOWN} more")
        return "; ".join(shown)
    if _NO_DESCRIPTORS in log:  # before what it leads to: Triton takes a socket for taken then
        return (
            "it needs more open files at once than this process may have; raise the limit, "
            "such as with ulimit -n 1024"
        )
    for found in filter(None, map(_TAKEN.search, messages)):
        return taken(found["address"], found["protocol"].lower(), int(found["port"]))
    last_words = [m["why"] for line in log.splitlines() if (m := _LAST_WORD.match(line))]
    return last_words[-1] if last_words else None


def _model_failure(message: str) -> str | None:
    if found := _FAILED_TO_LOAD.search(message):
        return f"{found['model']} version {found['version']}: {_plain(found['why'])}"
    if found := _POLL_FAILED.search(message):
        return f"{found['model']}: {_plain(found['why'])}"
    return None


def _plain(why: str) -> str:
    return _STATUS.sub("", _PYTHON_TRACE.sub("", why)).replace('\\"', '"').strip()
