"""A web service that judges pictures: POST a file, get the verdict as JSON.

    pip install fastapi uvicorn python-multipart
    DIFFUSIONAD_URL=line1:8001,line2:8001 DIFFUSIONAD_MODEL=screw uvicorn asyncio_service:app
    curl --form picture=@part.png http://127.0.0.1:8000/inspect

One client for all requests: it is made when the service starts. A full queue is the
caller's to wait for (503 with Retry-After), a bad picture is the caller's to mend (422).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Request, UploadFile

from diffusionad_client import AsyncClient, DiffusionADError, ImageError


@asynccontextmanager
async def connected(app: FastAPI) -> AsyncIterator[None]:
    """Hold the lines to the servers for as long as the service runs."""
    url = os.environ.get("DIFFUSIONAD_URL", "127.0.0.1:8001")
    async with AsyncClient(url, os.environ.get("DIFFUSIONAD_MODEL"), timeout=5) as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=connected)


@app.post("/inspect")
async def inspect(picture: Annotated[UploadFile, "an image file"], request: Request) -> Any:
    """Judge one picture."""
    try:
        found = await request.app.state.client.inspect(await picture.read())
    except ImageError as exc:
        raise HTTPException(422, str(exc)) from exc
    except DiffusionADError as exc:
        headers = {"Retry-After": "1"} if exc.retryable else None
        raise HTTPException(503 if exc.retryable else 502, str(exc), headers) from exc
    return found.to_dict()


@app.get("/stats")
async def stats(request: Request) -> Any:
    """Tell what was asked for so far, and how long it took."""
    return request.app.state.client.stats().to_dict()
