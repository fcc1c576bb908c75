"""Write the digests of the container images beside their versions: make pin-images.

NAME:VERSION becomes NAME:VERSION@sha256:..., which a registry cannot replace by another image.
Docker asks the registries. Nothing is written unless all of them answer.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = (
    "Dockerfile.gpu",
    "serving/Dockerfile.client",
    "serving/compose.yaml",
    "serving/embedded/Dockerfile",
    "serving/kubernetes/deployment.yaml",
)
IMAGE = re.compile(
    r"(?P<before>^FROM |^ +(?:- )?image: (?:\$\{\w+:-)?)"
    r"(?P<name>[\w./:-]+:[\w.-]+)(?:@sha256:[0-9a-f]+)?",
    re.MULTILINE,
)
INSPECT = ("docker", "buildx", "imagetools", "inspect", "--format", "{{.Manifest.Digest}}")


def digest(image: str) -> str:
    """Return the digest of an image in its registry, of all its platforms together."""
    try:
        done = subprocess.run([*INSPECT, image], capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        sys.exit(f"The registry of {image} must be asked with docker buildx. Received: {error}")
    answer = done.stdout.strip()
    if done.returncode or not re.fullmatch(r"sha256:[0-9a-f]{64}", answer):
        received = " ".join((done.stderr.strip() or answer).split())
        sys.exit(f"The registry must answer with the digest of {image}. Received: {received!r}")
    return answer


def main(root: Path = ROOT) -> None:
    """Write the digests into all files."""
    texts = {root / name: (root / name).read_text(encoding="utf-8") for name in FILES}
    images = {found["name"] for text in texts.values() for found in IMAGE.finditer(text)}
    digests = {image: digest(image) for image in sorted(images)}
    for path, text in texts.items():
        pinned = IMAGE.sub(
            lambda found: f"{found['before']}{found['name']}@{digests[found['name']]}", text
        )
        path.write_text(pinned, encoding="utf-8")
    for image, value in digests.items():
        print(f"{image}@{value}")


if __name__ == "__main__":
    main()
