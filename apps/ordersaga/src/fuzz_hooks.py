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
# As in the descriptions; a text that it refuses is meant to be refused, and stays as it is.
TEXT = r"^[^\x00-\x1f\x7f-\x9f\xad]*[^\s\x00-\x1f\x7f-\x9f\xad][^\x00-\x1f\x7f-\x9f\xad]*$"
# What a cancellation has.
ENDS = {
    "reason": ["OUT_OF_STOCK", "ITEM_NOT_FOUND", "SELLER_MISMATCH", "CANCELLED_BY_CLIENT", "DEADLINE_EXCEEDED"],
    "initiator": ["client", "store", "deadline"],
}
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
def write_legibly(ctx, case, kwargs):
    """The pattern of a text says only a part of what its description says in words."""
    methods = case.operation.schema.raw_schema["paths"].get(case.path, {})
    for parameter in methods.get(case.method.lower(), {}).get("parameters", []):
        pattern = parameter.get("schema", {}).get("pattern")
        name = parameter["name"]
        if parameter["in"] == "query" and pattern == TEXT and name in (case.query or {}):
            case.query[name] = legible(case.query[name])
    if case.path.endswith("/items/add") and isinstance(case.body, dict) and "name" in case.body:
        case.body = {**case.body, "name": legible(case.body["name"])}


def legible(text):
    if not isinstance(text, str) or not re.search(TEXT, text):
        return text
    kind = unicodedata.category
    ends = ("Zl", "Zp")
    text = "".join("x" if kind(c)[0] == "C" or kind(c) in ends else c for c in text)
    if not any(kind(letter)[0] in "LNPS" and letter not in INVISIBLE for letter in text):
        text = "x" + text[1:]
    return text


@schemathesis.hook("before_call")
def tell_facts_that_can_be(ctx, case, kwargs):
    """Only a cancellation has a reason and somebody who wanted it, and a telling names facts that are there.

    That others are refused (422) is tested elsewhere.
    """
    if not case.path.endswith("/status/fold") or not isinstance(case.body, dict):
        return
    facts, tellings = case.body.get("facts"), case.body.get("tellings")
    if not isinstance(facts, list) or not isinstance(tellings, list):
        return
    case.body = {
        **case.body,
        "facts": [as_it_can_be(fact) for fact in facts],
        "tellings": [with_places_below(len(facts), telling) for telling in tellings],
    }


def as_it_can_be(fact):
    if not isinstance(fact, dict) or fact.get("fact") not in ("PLACED", "RESERVED", "RELEASED", "CANCELLED"):
        return fact
    if fact["fact"] == "CANCELLED":
        return {"reason": "CANCELLED_BY_CLIENT", "initiator": "client", **fact}
    return {name: value for name, value in fact.items() if value not in ENDS.get(name, [])}


def with_places_below(facts, telling):
    places = telling.get("places") if isinstance(telling, dict) else None
    if not isinstance(places, list) or not facts:
        return telling
    is_place = lambda place: type(place) is int and 0 <= place
    return {**telling, "places": [place % facts if is_place(place) else place for place in places]}


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
