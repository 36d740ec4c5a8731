"""What schemathesis cannot know of these APIs from their description."""

import itertools
import re
import secrets

import schemathesis

KEY = "Idempotency-Key"
# As in the description: other values are meant to be refused, and stay as they are.
VALID = re.compile("[!-~]([ -~]{0,253}[!-~])?")
LONGEST_WAIT = 30_000
RUN = secrets.token_hex(4)

sent = {}
fresh = itertools.count()


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
def wait_less(ctx, case, kwargs):
    """Nothing is won by waiting half a minute for each order that is not there."""
    wait = (case.query or {}).get("wait_ms")
    if isinstance(wait, int) and 1000 < wait < LONGEST_WAIT:
        case.query["wait_ms"] = wait % 1000
