"""Writes the JSON Schemas of CustomResourceDefinitions: crd-schemas.py CRDS OUT.

As strict as the API server with --validate=strict: a field that a definition does not name is
refused, unless the definition keeps unknown fields.
"""
import json
import pathlib
import sys

import yaml


def strict(schema):
    """Closes the objects of a schema and spells out integer-or-string."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: strict(part) for key, part in schema.items()}
    keeps = schema.get("x-kubernetes-preserve-unknown-fields") is True
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not keeps:
        schema.setdefault("additionalProperties", False)
    if schema.pop("x-kubernetes-int-or-string", None) is True:
        schema.pop("type", None)
        schema["type"] = ["integer", "string"]
    return schema


def main(crds, out):
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    # A plain `=` is a string to everybody but YAML 1.1.
    loader.add_constructor("tag:yaml.org,2002:value", loader.construct_yaml_str)
    count = 0
    for path in sorted(pathlib.Path(crds).rglob("*.y*ml")):
        for crd in yaml.load_all(path.read_text(), Loader=loader):
            if not crd or crd.get("kind") != "CustomResourceDefinition":
                continue
            spec = crd["spec"]
            for version in spec["versions"]:
                name = f"{spec['names']['kind'].lower()}_{version['name']}.json"
                file = pathlib.Path(out, spec["group"], name)
                file.parent.mkdir(parents=True, exist_ok=True)
                schema = version["schema"]["openAPIV3Schema"]
                file.write_text(json.dumps(strict(schema)))
                count += 1
    print(f"{count} schemas of custom resources")


main(*sys.argv[1:])
