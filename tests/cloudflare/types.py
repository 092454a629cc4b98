"""Checks recorded request bodies against the request types of Cloudflare's generated client.

Each line of the file is `[CALL, BODY]`. Of each kind of call that is known one at least must be there.
One exception is made, and said: the last rule of a configuration matches everything and so has no
hostname, as in Cloudflare's own documentation, though the type asks for one.
"""

import collections.abc
import json
import re
import sys
import typing

from cloudflare.types.dns import record_create_params, record_edit_params, record_update_params
from cloudflare.types.zero_trust.tunnels import cloudflared_create_params, cloudflared_edit_params
from cloudflare.types.zero_trust.tunnels.cloudflared import configuration_update_params

ONE = r"[^/]+"
TYPES = [
    (f"POST /accounts/{ONE}/cfd_tunnel", cloudflared_create_params.CloudflaredCreateParams),
    (f"PATCH /accounts/{ONE}/cfd_tunnel/{ONE}", cloudflared_edit_params.CloudflaredEditParams),
    (
        f"PUT /accounts/{ONE}/cfd_tunnel/{ONE}/configurations",
        configuration_update_params.ConfigurationUpdateParams,
    ),
    (f"POST /zones/{ONE}/dns_records", record_create_params.CNAMERecord),
    (f"PUT /zones/{ONE}/dns_records/{ONE}", record_update_params.CNAMERecord),
    (f"PATCH /zones/{ONE}/dns_records/{ONE}", record_edit_params.CNAMERecord),
]

# Those stand in the path, not in the body.
IN_PATH = {"account_id", "zone_id", "tunnel_id", "dns_record_id"}


def fields(kind):
    """Name on the wire -> type, and the names that must be there."""
    known, required = {}, set()
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        if name in IN_PATH:
            continue
        wire = name
        while True:
            origin = typing.get_origin(hint)
            if origin is not None and getattr(origin, "_name", str(origin)).endswith("Required"):
                required.add(name)
                hint = typing.get_args(hint)[0]
            elif hasattr(hint, "__metadata__"):
                wire = next((m.alias for m in hint.__metadata__ if getattr(m, "alias", None)), wire)
                hint = hint.__origin__
            else:
                break
        known[wire] = hint
    return known, required


def check(value, hint, place, problems):
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hasattr(hint, "__required_keys__") or hasattr(hint, "__total__"):
        if not isinstance(value, dict):
            return problems.append(f"{place}: not an object")
        known, needed = fields(hint)
        for key in value:
            if key not in known:
                problems.append(f"{place}.{key}: the type has no such field")
            else:
                check(value[key], known[key], f"{place}.{key}", problems)
        problems.extend(f"{place}.{key}: missing" for key in needed if key not in value)
    elif origin is typing.Union:
        attempts = []
        for option in inner:
            attempts.append([])
            check(value, option, place, attempts[-1])
        if all(attempts):
            problems.extend(min(attempts, key=len))
    elif origin is typing.Literal or "Literal" in str(origin):
        if value not in inner:
            problems.append(f"{place}: {value!r} is none of {inner}")
    elif origin in (list, collections.abc.Iterable, collections.abc.Sequence):
        if not isinstance(value, list):
            return problems.append(f"{place}: not a list")
        for number, item in enumerate(value):
            check(item, inner[0], f"{place}[{number}]", problems)
    elif hint in (str, int, float, bool):
        fits = isinstance(value, hint) or (hint is float and isinstance(value, int))
        if not fits or (hint in (int, float) and isinstance(value, bool)):
            problems.append(f"{place}: {value!r} is no {hint.__name__}")
    elif hint is not type(None) and hint is not object:
        problems.append(f"{place}: a type that this script does not know: {hint}")


def main():
    with open(sys.argv[1]) as file:
        # Many tests ask the same.
        bodies = [json.loads(line) for line in dict.fromkeys(file)]
    failed = 0
    for call, body in bodies:
        kind = next((kind for path, kind in TYPES if re.fullmatch(path, call)), None)
        problems = []
        if kind is None:
            problems.append("no type is known for this call")
        else:
            check(body, kind, "", problems)
        rules = (body.get("config") or {}).get("ingress") or []
        last = f".config.ingress[{len(rules) - 1}].hostname: missing"
        allowed = [problem for problem in problems if problem == last]
        problems = [problem for problem in problems if problem != last]
        note = " (the last rule has no hostname)" if allowed else ""
        print(f"{'ok  ' if not problems else 'FAIL'}  {call}{note}")
        for problem in problems:
            print(f"      {problem}")
        failed += bool(problems)
    for path, _ in TYPES:
        if not any(re.fullmatch(path, call) for call, _ in bodies):
            sys.exit(f"no body was recorded of {path}")
    sys.exit(1 if failed else 0)


main()
