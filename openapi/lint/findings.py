"""Runs vacuum with its recommended rules and prints errors and warnings, but for those on purpose."""

import json
import subprocess
import sys
import sysconfig

VACUUM = sysconfig.get_path("platlib") + "/vacuum/lib/vacuum"

# Swagger UI fills in every example: with one of a key, each later create would be answered with the
# first order.
WITHOUT_EXAMPLE = {"Idempotency-Key", "idempotency_key", "traceparent"}
# There in the place of another property, which the example has.
WITHOUT_EXAMPLE |= {"error", "key_hex", "value_hex"}


def is_on_purpose(document, finding):
    if finding["code"] != "oas3-missing-example":
        return False
    path = finding["path"]
    # The example of a request's body is in its type: openapi-generator's java warns of any other.
    if path[-3:-1] == ["requestBody", "content"]:
        reference = at(at(document, path), ["schema"]).get("$ref", "")
        return "example" in at(document, reference.removeprefix("#/").split("/"))
    if path[-2:-1] == ["properties"]:
        return path[-1] in WITHOUT_EXAMPLE
    # A parameter, or its type.
    parameter = at(document, path[:-1] if path[-1] == "schema" else path)
    return "in" in parameter and parameter.get("name") in WITHOUT_EXAMPLE


def at(value, path):
    for step in path:
        value = value[int(step)] if isinstance(value, list) else value.get(step, {})
    return value


def findings(name):
    # Rules that take too long are left out without a word: so let them.
    command = [VACUUM, "spectral-report", "--no-style", "--stdout", "--remote=false", "--timeout=60", name]
    run = subprocess.run(command, capture_output=True, text=True)
    try:
        return json.loads(run.stdout) or []
    except ValueError:
        sys.exit(f"{name}: {run.stdout}{run.stderr}")


count = 0
for name in sys.argv[1:]:
    with open(name) as file:
        document = json.load(file)
    for finding in findings(name):
        is_at_least_a_warning = finding["severity"] <= 1
        if is_at_least_a_warning and not is_on_purpose(document, finding):
            count += 1
            line, path = finding["range"]["start"]["line"], ".".join(finding["path"])
            print(f"{name}:{line}: {finding['code']}: {finding['message']} ({path})")
sys.exit(count > 0)
