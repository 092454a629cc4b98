"""Reads what the journal has of gitopsd (`journalctl -o json`), against the catalog's kinds.

    journal.py FILE KIND [FIELD…]   an event of this kind is there, and all of its events have the fields
    journal.py FILE --once KIND…    no event of these kinds is there twice in one life of the daemon
    journal.py FILE --all           every kind is there, at its own priority, in plain words, and with
                                    the fields that its explanation in the catalog fills in

Kinds go by the names of their constants in src/logging/message.rs.
"""

import collections
import json
import re
import sys

# Of the edge no source can be named.
EDGE = "Host/edge"

path, *words = sys.argv[1:]
source = open("src/logging/message.rs").read()
kinds = dict(re.findall(r'Message::(\w+),\s*"([0-9a-f]{32})"', source))
names = {id: name for name, id in kinds.items()}
entries = [json.loads(line) for line in open(path)]
ours = [e for e in entries if e.get("SYSLOG_IDENTIFIER") == "gitopsd" and "MESSAGE_ID" in e]


def fail(text):
    sys.exit(f"journal: {text}")


def of(name):
    return [e for e in ours if e["MESSAGE_ID"] == kinds[name]]


if words[0] == "--once":
    for name in words[1:]:
        told = collections.Counter((e["_PID"], e["_BOOT_ID"], e["MESSAGE"]) for e in of(name))
        twice = [text for (_, _, text), count in told.items() if count > 1]
        if not told or twice:
            fail(f"{name}: {len(told)} events, told twice: {twice}")
elif words[0] == "--all":
    missing = sorted(set(kinds) - {names[e["MESSAGE_ID"]] for e in ours if e["MESSAGE_ID"] in names})
    if missing:
        fail(f"no event of these kinds: {', '.join(missing)}")
    # Errors are what a person has to act upon.
    loud = {"ConfigRefused", "CannotRun", "RecordRebuilt", "DiskFull", "RunFailed", "SealedFailed", "HealthFailed", "ClaimRefused"}
    for e in ours:
        name, priority = names[e["MESSAGE_ID"]], int(e["PRIORITY"])
        if (priority <= 3) != (name in loud):
            fail(f"{name} at priority {priority}: {e['MESSAGE']}")
        if not e["MESSAGE"].strip() or "\n" in e["MESSAGE"].strip() and name not in loud:
            fail(f"{name} is no line: {e['MESSAGE']!r}")
    catalog = open("packaging/usr/lib/systemd/catalog/gitopsd.catalog").read()
    explained = dict(re.findall(r"^-- ([0-9a-f]{32})\n(.*?)(?=^-- |\Z)", catalog, re.M | re.S))
    lacking = set()
    for e in ours:
        for field in re.findall(r"@(\w+)@", explained[e["MESSAGE_ID"]]):
            if not e.get(field):
                lacking.add(f"{names[e['MESSAGE_ID']]}: {field} ({e['MESSAGE'][:90]})")
    if lacking:
        fail("explanations without what they speak of:\n    " + "\n    ".join(sorted(lacking)))
    counts = collections.Counter(names[e["MESSAGE_ID"]] for e in ours)
    print(f"    {len(ours)} events of {len(counts)} kinds", file=sys.stderr)
else:
    name, *fields = words
    found = [e for e in of(name) if e.get("GITOPSD_KUSTOMIZATION") != EDGE]
    if not found:
        fail(f"no event of the kind {name}")
    for e in found:
        lacks = [field for field in fields if field not in e]
        if lacks:
            fail(f"{name} lacks {', '.join(lacks)}: {e['MESSAGE']}")
