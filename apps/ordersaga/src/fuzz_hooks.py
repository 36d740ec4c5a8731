"""What schemathesis cannot know of these APIs from their description."""

import itertools
import re
import secrets
import unicodedata

import schemathesis

KEY = "Idempotency-Key"
# As in the description: other values are meant to be refused, and stay as they are.
VALID = re.compile("[!-~]([ -~]{0,253}[!-~])?")
LONGEST_WAIT = 30_000
# Fillers of Hangul and the empty pattern of Braille.
INVISIBLE = "\u115f\u1160\u3164\uffa0\u2800"
RUN = secrets.token_hex(4)

sent = {}
fresh = itertools.count()


@schemathesis.hook
def before_load_schema(ctx, raw_schema):
    """It follows no link to another service's document, and takes one for wrong."""
    for methods in raw_schema["paths"].values():
        for operation in methods.values():
            for answer in operation["responses"].values():
                links = answer.get("links", {})
                for name in [name for name, link in links.items() if "operationRef" in link]:
                    del links[name]


@schemathesis.hook("before_call")
def name_items_legibly(ctx, case, kwargs):
    if case.path.endswith("/items/add") and isinstance(case.body, dict) and "name" in case.body:
        case.body = {**case.body, "name": legible(case, case.body["name"])}
    if case.path.endswith("/items") and "name" in (case.query or {}):
        case.query["name"] = legible(case, case.query["name"])


def legible(case, name):
    """The pattern of names says only a part of what their description says in words.

    What the pattern refuses is meant to be refused, and stays as it is.
    """
    if not isinstance(name, str) or not pattern_of_names(case).search(name):
        return name
    kind = unicodedata.category
    ends = ("Zl", "Zp")
    name = "".join("x" if kind(c)[0] == "C" or kind(c) in ends else c for c in name)
    if not any(kind(letter)[0] in "LNPS" and letter not in INVISIBLE for letter in name):
        name = "x" + name[1:]
    return name


def pattern_of_names(case):
    schemas = case.operation.schema.raw_schema["components"]["schemas"]
    return re.compile(schemas["NewItem"]["properties"]["name"]["pattern"])


@schemathesis.hook("before_call")
def give_other_requests_other_keys(ctx, case, kwargs):
    """No description can say that a valid key is refused (422) because of what it was used for.

    That it is refused is tested elsewhere.
    """
    key = (case.headers or {}).get(KEY)
    if not isinstance(key, str) or not VALID.fullmatch(key):
        return
    request = repr((case.method, case.path, case.query, case.body))
    if sent.setdefault(key, request) != request:
        case.headers[KEY] = f"{RUN}-{next(fresh)}"


@schemathesis.hook("before_call")
def give_orders_of_many_keys_of_their_own(ctx, case, kwargs):
    """A key in a body is the same as one in a header: either could be used for another request."""
    orders = case.body.get("orders") if isinstance(case.body, dict) else None
    if not case.path.endswith("/create-many") or not isinstance(orders, list):
        return
    case.body = {**case.body, "orders": [with_own_key(order) for order in orders]}


def with_own_key(order):
    key = order.get("idempotency_key") if isinstance(order, dict) else None
    if not isinstance(key, str) or not VALID.fullmatch(key):
        return order
    return {**order, "idempotency_key": f"{RUN}-{next(fresh)}"}


@schemathesis.hook("before_call")
def wait_less(ctx, case, kwargs):
    """Nothing is won by waiting half a minute for each order that is not there."""
    wait = (case.query or {}).get("wait_ms")
    if isinstance(wait, int) and 1000 < wait < LONGEST_WAIT:
        case.query["wait_ms"] = wait % 1000
