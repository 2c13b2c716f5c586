"""The page: one html document, put together from its parts when the server starts."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Response

router = APIRouter()
SCRIPTS = ("page.js", "live.js", "translate.js")


@router.get("/")
async def get_page() -> Response:
    """Return the page."""
    html, policy = build_page()
    headers = {"Content-Security-Policy": policy, "Cache-Control": "no-cache"}
    return Response(html, media_type="text/html; charset=utf-8", headers=headers)


@cache
def build_page() -> tuple[str, str]:
    """Return the page, and the policy that lets a browser run its own script and no other."""
    folder = files("speechjepa.serving") / "web"
    html, style, worklet, *scripts = (
        (folder / name).read_text(encoding="utf-8")
        for name in ("page.html", "page.css", "microphone.js", *SCRIPTS)
    )
    script = "".join(scripts)
    for mark, text in (("/*STYLE*/", style), ("/*WORKLET*/", worklet), ("/*SCRIPT*/", script)):
        html = html.replace(mark, text)
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src '{_digest(script)}' blob:",  # blob: is the microphone's worklet
            f"style-src '{_digest(style)}'",
            "connect-src 'self'",
            "media-src blob:",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )
    return html, policy


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
