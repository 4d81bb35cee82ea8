"""Runtimes beside Debian's containerd with runc: what is built of them, and the disk on which the node gets them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final, NamedTuple

from tests.e2e.build import BUSYBOX_IMAGE, COLLECTOR_IMAGE, PAUSE_IMAGE, TOOLS, fingerprint, made_from, run
from tests.e2e.layout import CACHE, IMAGES
from tests.e2e.processes import E2EError, need

GVISOR_MODULE: Final = TOOLS / "gvisor"
"""A module of its own: it asks for other versions of containerd's libraries than Kubernetes' programs do."""
GVISOR_PROGRAMS: Final = {"runsc": "gvisor.dev/gvisor/runsc", "containerd-shim-runsc-v1": "gvisor.dev/gvisor/shim"}

CRIO_VARIABLE: Final = "PODTALLY_E2E_CRIO"
"""Names a folder with the programs of CRI-O: the Go module proxy refuses its module, and Debian has no package."""
CRIO_PROGRAMS: Final = ("crio", "pinns")


class Runtime(NamedTuple):
    """One way to run the node's containers."""

    name: str
    pods: tuple[str, ...]
    """The folders of manifests/runtimes with its pods."""
    boot: tuple[str, ...] = ()
    """Words for the kernel's command line, beyond ``e2e.runtime``."""

    @property
    def is_containerd(self) -> bool:
        """Whether containerd is between the kubelet and it."""
        return self.name != "crio"


RUNTIMES: Final = {
    one.name: one
    for one in (
        Runtime("runc", ("pods",)),
        Runtime("crun", ("pods",)),
        Runtime("gvisor", ("gvisor",)),
        Runtime("crio", ("pods",), ("systemd.mask=containerd.service", "systemd.wants=crio.service")),
    )
}


def disk(runtime: Runtime) -> Path | None:
    """The disk with the runtime's programs, built if need be; ``None`` for one that is on the node's own.

    Raises: E2EError.
    """
    match runtime.name:
        case "gvisor":
            return _gvisor()
        case "crio":
            return _crio()
        case _:
            return None


def _gvisor() -> Path:
    """The programs of gVisor, its shim for containerd with them: Debian's package has none."""
    out = CACHE / "runtime-gvisor.img"
    made = fingerprint(*((GVISOR_MODULE / name).read_bytes() for name in ("go.mod", "go.sum")))
    stamp = CACHE / ".runtime-gvisor"
    if made_from(stamp, made, out):
        return out
    need("go", package_hint="install Go 1.26 or newer; it builds gVisor from its module.")
    content = _emptied(CACHE / "runtime-gvisor")
    (content / "bin").mkdir()
    for name, package in GVISOR_PROGRAMS.items():
        print(f"    {name}", flush=True)
        command = ("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", str(content / "bin" / name), package)
        run(*command, cwd=GVISOR_MODULE, environment={**os.environ, "CGO_ENABLED": "0"})
    _filled(out, content, "1G")
    stamp.write_text(made)
    return out


def _crio() -> Path:
    """CRI-O, and its store with the images: containerd's is of no use to it."""
    folder = os.environ.get(CRIO_VARIABLE)
    programs = [Path(folder) / name for name in CRIO_PROGRAMS] if folder else []
    if not programs or not all(program.is_file() for program in programs):
        raise E2EError(f"CRI-O is not to be had from here: set {CRIO_VARIABLE} to a folder with its crio and pinns.")
    images = {"pause": PAUSE_IMAGE, "busybox": BUSYBOX_IMAGE, "podtally": COLLECTOR_IMAGE}
    archives = [IMAGES / f"{name}.tar" for name in images]
    times = (str(file.stat().st_mtime_ns).encode() for file in (*programs, *archives))
    out, stamp, made = CACHE / "runtime-crio.img", CACHE / ".runtime-crio", fingerprint(*times)
    if made_from(stamp, made, out):
        return out
    need("buildah", package_hint="apt-get install buildah")
    content = _emptied(CACHE / "runtime-crio")
    (content / "bin").mkdir()
    for program in programs:
        shutil.copy2(program, content / "bin")
    store = ("--root", str(content / "containers/storage"), "--runroot", str(CACHE / "runtime-crio-run"))
    for archive in archives:
        run("buildah", *store, "--storage-driver", "overlay", "pull", "--quiet", f"docker-archive:{archive}")
    _filled(out, content, "4G")
    stamp.write_text(made)
    return out


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _filled(image: Path, content: Path, size: str) -> None:
    """A disk of that size with what a folder holds."""
    image.unlink(missing_ok=True)
    run("truncate", "-s", size, str(image))
    run("mkfs.ext4", "-q", "-F", "-d", str(content), "-E", "lazy_itable_init=1", "-m", "0", str(image))
    shutil.rmtree(content)
