"""``/v1/artifacts``: list the files of an artifact, and send one."""

from fastapi import APIRouter
from fastapi.responses import FileResponse

from prunus.service.api.parts import Asked
from prunus.service.wire import ArtifactView

router = APIRouter(prefix="/v1/artifacts")


@router.get("")
def artifacts(parts: Asked, source: str) -> ArtifactView:
    """List what a fetch of ``source`` brings."""
    return parts.artifacts.listing(source)


@router.get("/file", response_class=FileResponse)
def artifact_file(parts: Asked, source: str, path: str) -> FileResponse:
    """Send one file; a byte range is honoured."""
    place, sha256 = parts.artifacts.file(source, path)
    # The digest as ETag: a client that resumes with If-Range never mixes two versions.
    return FileResponse(place, media_type="application/octet-stream", headers={"etag": f'"{sha256}"'})
