"""The protected API: what it serves to a request whose token is good, and what to others."""

from __future__ import annotations

import hashlib

from ._wire import JSON, Call, Refusal, Reply, json_reply, read_fields, redirect_reply

_PONG = b'{"pong":true}'


def serve(call: Call, count: int) -> Reply:
    """Tell the caller what arrived; `/api/ping` does so fast, `/api/redirect` sends elsewhere."""
    if call.path == "/api/ping" and call.method == "GET":
        return Reply(200, [JSON], _PONG)
    if call.path == "/api/redirect":
        query = read_fields(call.query)
        if "to" not in query:
            raise Refusal("invalid_request", "redirect needs to=")
        return redirect_reply(query["to"], int(query.get("status", "307")))
    return json_reply(
        {
            "method": call.method,
            "path": call.path,
            "query": call.query,
            "length": len(call.body),
            "sha256": hashlib.sha256(call.body).hexdigest(),
            "content_type": call.headers.get("content-type"),
            "count": count,
        }
    )


def refuse(outcome: str) -> Reply:
    """Refuse with a 401 as in RFC 6750 section 3; without a token there is no error code (3.1)."""
    challenge = 'Bearer realm="api"'
    if outcome != "missing":
        challenge += f', error="invalid_token", error_description="the token is {outcome}"'
    reply = json_reply({"error": "invalid_token", "reason": outcome}, 401)
    reply.headers.append((b"www-authenticate", challenge.encode()))
    return reply
