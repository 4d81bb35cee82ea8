"""What is built once and kept: Kubernetes' programs and Prometheus by Go, the node's disk by mmdebstrap, the images."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

from tests.e2e import pki
from tests.e2e.layout import BASE_DISK, BIN, CACHE, HERE, IMAGE_DISK, IMAGES, PKI, REPO, ROOTFS, RUN
from tests.e2e.processes import E2EError, need

TOOLS = HERE / "tools"
PROMETHEUS_MODULE = TOOLS / "prometheus"
"""A module of its own: it asks for other versions of Kubernetes' libraries than Kubernetes' programs do."""
GUEST_SUITE = "forky"
"""Debian's testing: containerd 2.1, which a kubelet of 1.36 asks for."""
GUEST_PACKAGES = (
    "systemd-sysv,systemd,udev,dbus,containerd,runc,containernetworking-plugins,iptables,nftables,iproute2,kmod,"
    "ca-certificates,openssh-server,procps,busybox-static,curl,zstd,util-linux,python3-minimal,"
    "initramfs-tools,linux-image-cloud-amd64,crun,conmon"
)
PROGRAMS = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    "kubelet": "k8s.io/kubernetes/cmd/kubelet",
    "metrics-server": "sigs.k8s.io/metrics-server/cmd/metrics-server",
    "cadvisor": "./cadvisor",
}
BUSYBOX_IMAGE = "localhost/busybox:e2e"
PAUSE_IMAGE = "localhost/pause:e2e"
PROMETHEUS_IMAGE = "localhost/prometheus:e2e"
STANDIN_IMAGE = "localhost/k6-standin:e2e"
"""Of what runs the load test's scripts in the place of k6, which is not built here."""
COLLECTOR_IMAGE = "localhost/podtally:test"
"""The name under which tests/image/build.sh keeps it."""
_OCI = "application/vnd.oci.image"
CHANGED_IMAGE = "localhost/podtally:changed"
STORE = CACHE.parent / "image"
"""Buildah's, made by tests/image/build.sh."""


def fingerprint(*parts: bytes) -> str:
    """One word for what something is made from."""
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def made_from(stamp: Path, digest: str, *made: Path) -> bool:
    """Whether all that was made is there, and was made from that."""
    return all(file.exists() for file in made) and stamp.exists() and stamp.read_text() == digest


def programs() -> None:
    """Kubernetes, etcd, metrics-server and cAdvisor, from the modules that go.mod pins."""
    sources = [TOOLS / "go.mod", TOOLS / "go.sum", *sorted((TOOLS / "cadvisor").iterdir())]
    digest = fingerprint(*(file.read_bytes() for file in sources))
    if made_from(BIN / ".digest", digest, *(BIN / name for name in PROGRAMS)):
        return
    need("go", package_hint="install Go 1.26 or newer; it builds Kubernetes' own programs from their modules.")
    BIN.mkdir(parents=True, exist_ok=True)
    release = re.search(r"^\s*k8s\.io/kubernetes (v(\d+)\.(\d+)\.\S+)", (TOOLS / "go.mod").read_text(), re.MULTILINE)
    assert release is not None, "go.mod names the release of Kubernetes"
    version = "k8s.io/component-base/version"
    numbers = zip(("gitVersion", "gitMajor", "gitMinor"), release.groups(), strict=True)
    flags = " ".join(["-s -w", *(f"-X {version}.{name}={value}" for name, value in numbers)])
    environment = {**os.environ, "CGO_ENABLED": "0"}
    for name, package in PROGRAMS.items():
        print(f"    {name}", flush=True)
        command = ["go", "build", "-trimpath", "-ldflags", flags, "-o", str(BIN / name), package]
        done = subprocess.run(command, cwd=TOOLS, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise E2EError(
                f"go could not build {name} (is its module registry reached?):\n{done.stderr.strip()[-2000:]}"
            )
    (BIN / ".digest").write_text(digest)


def prometheus() -> None:
    """Prometheus of the release that monitoring/ names, and its promtool: Debian's has no discovery in Kubernetes."""
    made = [BIN / name for name in ("prometheus", "promtool")]
    text = (PROMETHEUS_MODULE / "go.mod").read_text()
    digest = fingerprint(text.encode(), (PROMETHEUS_MODULE / "go.sum").read_bytes())
    if made_from(BIN / ".prometheus", digest, *made):
        return
    need("go", package_hint="install Go 1.26 or newer; it builds Prometheus from its modules.")
    module = "github.com/prometheus/prometheus"
    release = re.search(rf"^\s*{module} v0\.(\d)(\d\d)\.(\d+)", text, re.MULTILINE)
    assert release is not None, "go.mod names the release: v0.313.5 is 3.13.5"
    flags = f"-s -w -X github.com/prometheus/common/version.Version={release[1]}.{int(release[2])}.{release[3]}"
    tags = "remove_all_sd,enable_kubernetes_sd"  # the other kinds of discovery are half of its size
    command = ["go", "build", "-trimpath", "-tags", tags, "-ldflags", flags, "-o", str(BIN)]
    done = subprocess.run(
        [*command, *(f"{module}/cmd/{file.name}" for file in made)],
        cwd=PROMETHEUS_MODULE,
        env={**os.environ, "CGO_ENABLED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise E2EError(
            f"go could not build Prometheus (is its module registry reached?):\n{done.stderr.strip()[-2000:]}"
        )
    (BIN / ".prometheus").write_text(digest)


def disk() -> None:
    """The node's disk: Debian with containerd, the kubelet, and what guest/ holds; an older kernel beside Debian's."""
    pki.make()
    guest = HERE / "guest"
    files = sorted(p for p in guest.rglob("*") if p.is_file())
    config = fingerprint(
        *(str(p.relative_to(guest)).encode() + p.read_bytes() for p in files), (BIN / ".digest").read_bytes()
    )
    config = fingerprint(config.encode(), GUEST_SUITE.encode(), GUEST_PACKAGES.encode(), (PKI / "ca.crt").read_bytes())
    if made_from(CACHE / ".disk", config, BASE_DISK):
        return
    if os.geteuid() != 0:
        raise E2EError("make e2e must run as root: it makes a root file system and a network namespace.")
    need(
        "mmdebstrap",
        "mkfs.ext4",
        "dpkg-deb",
        "ssh-keygen",
        package_hint="apt-get install mmdebstrap e2fsprogs openssh-client",
    )
    packages, kept = fingerprint(GUEST_SUITE.encode(), GUEST_PACKAGES.encode()), CACHE / ".rootfs"
    if not made_from(kept, packages, ROOTFS / "usr/bin/containerd"):
        shutil.rmtree(ROOTFS, ignore_errors=True)
        run(
            "mmdebstrap", "--mode=root", "--variant=minbase", "--quiet", '--aptopt=Acquire::Check-Valid-Until "false"',
            f"--include={GUEST_PACKAGES}", GUEST_SUITE, str(ROOTFS), *_mirror(),
        )  # fmt: skip
        kept.write_text(packages)
    _older_kernel()
    shutil.copytree(guest, ROOTFS, dirs_exist_ok=True, symlinks=True)
    shutil.copy2(BIN / "kubelet", ROOTFS / "usr/bin/kubelet")
    target = ROOTFS / "etc/kubernetes/pki"
    target.mkdir(parents=True, exist_ok=True)
    for name in ("ca.crt", "kubelet.crt", "kubelet.key", "kubelet.kubeconfig"):
        shutil.copy2(PKI / name, target / name)
    keys = ROOTFS / "root/.ssh"
    keys.mkdir(mode=0o700, exist_ok=True)
    shutil.copy2(PKI / "ssh_key.pub", keys / "authorized_keys")
    (ROOTFS / "etc/machine-id").write_text(hashlib.sha256(b"podtally-e2e").hexdigest()[:32] + "\n")
    run("chroot", str(ROOTFS), "ssh-keygen", "-A")
    run("chroot", str(ROOTFS), "systemctl", "enable", "systemd-networkd", "ssh", "containerd", "e2e-driver", "kubelet")
    run(
        "chroot", str(ROOTFS), "systemctl", "mask", "systemd-networkd-wait-online.service", "apt-daily.timer",
        "apt-daily-upgrade.timer", "systemd-firstboot.service", "e2scrub_all.timer",
    )  # fmt: skip
    BASE_DISK.unlink(missing_ok=True)
    run("truncate", "-s", "10G", str(BASE_DISK))
    run("mkfs.ext4", "-q", "-F", "-d", str(ROOTFS), "-E", "lazy_itable_init=1", "-m", "0", str(BASE_DISK))
    (CACHE / ".disk").write_text(config)


def kernels() -> dict[str, str]:
    """The kernels of the node's disk, by release: "older" is this machine's Debian's, "newer" the guest's own."""
    releases = sorted((p.name.removeprefix("vmlinuz-") for p in (ROOTFS / "boot").glob("vmlinuz-*")), key=_release)
    return {"older": releases[0], "newer": releases[-1]}


def _release(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name)[:3]]


def _mirror() -> list[str]:
    """The address that this machine's own apt takes Debian from; it is written nowhere."""
    for file in sorted(Path("/etc/apt/sources.list.d").glob("*.sources")):
        found = re.search(r"^URIs:\s*(\S+/debian)/?\s*$", file.read_text(), re.MULTILINE)
        if found:
            return [found[1]]
    return []


def _older_kernel() -> None:
    """The kernel of this machine's Debian release, beside the guest's own."""
    if len(list((ROOTFS / "boot").glob("vmlinuz-*"))) > 1:
        return
    shown = run("apt-cache", "depends", "linux-image-cloud-amd64")
    found = re.search(r"Depends: (linux-image-\S+)", shown)
    if not found:
        raise E2EError("apt knows no linux-image-cloud-amd64: run apt-get update, and try again.")
    folder = CACHE / "kernel"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    run("apt-get", "download", "-q", found[1], cwd=folder)
    package = next(folder.glob("*.deb"))
    run("dpkg-deb", "-x", str(package), str(folder / "x"))
    for source, target in (("boot", "boot"), ("lib/modules", "usr/lib/modules")):
        shutil.copytree(folder / "x" / source, ROOTFS / target, dirs_exist_ok=True, symlinks=True)
    release = found[1].removeprefix("linux-image-")
    run("chroot", str(ROOTFS), "depmod", release)
    run("chroot", str(ROOTFS), "update-initramfs", "-c", "-k", release)
    shutil.rmtree(folder)


def images() -> None:
    """Archives of the images: the sandbox's, busybox, Prometheus, and the project's own from its Dockerfile."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    busybox = IMAGES / "busybox.tar"
    if not busybox.exists():
        program = (ROOTFS / "usr/bin/busybox").read_bytes()
        listed = subprocess.run([str(ROOTFS / "usr/bin/busybox"), "--list"], capture_output=True, text=True, check=True)
        links = {f"bin/{name}": "/bin/busybox" for name in listed.stdout.split() if name != "busybox"}
        _archive(busybox, BUSYBOX_IMAGE, ["/bin/sh"], {"bin/busybox": program}, links)
    pause = IMAGES / "pause.tar"
    if not pause.exists():
        need("gcc", package_hint="apt-get install gcc libc6-dev")
        run("gcc", "-Os", "-static", "-s", "-o", str(IMAGES / "pause"), str(HERE / "images" / "pause.c"))
        _archive(pause, PAUSE_IMAGE, ["/pause"], {"pause": (IMAGES / "pause").read_bytes()}, {})
    archive, digest = IMAGES / "prometheus.tar", (BIN / ".prometheus").read_text()
    if not made_from(IMAGES / ".prometheus", digest, archive):
        program = (BIN / "prometheus").read_bytes()
        _archive(archive, PROMETHEUS_IMAGE, ["/bin/prometheus"], {"bin/prometheus": program}, {})
        (IMAGES / ".prometheus").write_text(digest)
    _collector_image()


def _archive(out: Path, name: str, entrypoint: list[str], files: dict[str, bytes], links: dict[str, str]) -> None:
    """An image of one layer, in the form of `docker save`."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for folder in ("tmp", "etc", "proc", "sys", "dev", "bin", "data"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder in ("tmp", "data") else 0o755
            tar.addfile(entry)
        for path, content in {**files, "etc/passwd": b"root:x:0:0:root:/:/bin/sh\n"}.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
        for path, target in links.items():
            entry = tarfile.TarInfo(path)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    data = layer.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": entrypoint, "Env": ["PATH=/bin", "LD_LIBRARY_PATH=/lib64"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()
    name_of_config = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": name_of_config, "RepoTags": [name], "Layers": [f"{digest}/layer.tar"]}]
    files = {name_of_config: config, f"{digest}/layer.tar": data, "manifest.json": json.dumps(manifest).encode()}
    out.write_bytes(_tar(files))


def standin_image() -> Path:
    """Node and the stand-in for k6, as an image that is started with k6's arguments."""
    need("node", package_hint="apt-get install nodejs")
    node = Path(shutil.which("node") or "").resolve()
    libraries = re.findall(r"(/\S+) \(0x", run("ldd", str(node)))
    files = {f"lib64/{Path(one).name}": Path(one).read_bytes() for one in libraries}
    files |= {"bin/node": node.read_bytes(), "standin.mjs": (REPO / "tests/loadtest/standin.mjs").read_bytes()}
    out = IMAGES / "k6-standin.tar"
    _archive(out, STANDIN_IMAGE, ["/bin/node", "/standin.mjs"], files, {})
    return out


def _sources() -> list[Path]:
    """The collector's files in the work tree."""
    listed = run("git", "ls-files", "-co", "--exclude-standard", "collector", cwd=REPO).split()
    return [file for file in (REPO / name for name in listed) if file.exists()]


def _digest_of(files: list[Path]) -> str:
    return fingerprint(*(str(f.relative_to(REPO)).encode() + f.read_bytes() for f in files))


def _dependencies_digest() -> str:
    """What the image is made of but the collector itself, as one number."""
    return _digest_of([REPO / name for name in ("Dockerfile", "requirements.lock", "pyproject.toml")])


def _collector_image() -> None:
    """The project's image, built by tests/image/build.sh, which also starts the collector from it on a recording."""
    archive, digest = IMAGES / "podtally.tar", _dependencies_digest() + _digest_of(_sources())
    if made_from(IMAGES / ".podtally", digest, archive):
        return
    need("buildah", package_hint="apt-get install buildah")
    log = RUN / "logs" / "image.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as out:
        done = subprocess.run([str(REPO / "tests/image/build.sh"), str(STORE)], stdout=out, stderr=out, check=False)
    if done.returncode:
        raise E2EError(
            f"the image was not built; the last lines of {log}:\n" + "\n".join(log.read_text().splitlines()[-15:])
        )
    _saved(COLLECTOR_IMAGE, archive)
    (IMAGES / ".podtally").write_text(digest)


def _buildah(*arguments: str) -> str:
    """Buildah on the store of tests/image/build.sh; what it prints."""
    place = ("--root", str(STORE / "storage"), "--runroot", str(STORE / "run"), "--storage-driver", "vfs")
    return run("buildah", *place, *arguments).strip()


_FILL = """
mount --bind "$ROOTFS" "$ROOTFS"
mount -t proc proc "$ROOTFS/proc"
mount --bind /dev "$ROOTFS/dev"
for folder in run tmp; do mount -t tmpfs tmpfs "$ROOTFS/$folder"; done
mkdir -p "$ROOTFS/var/lib/containerd"
mount -o loop "$DISK" "$ROOTFS/var/lib/containerd"
mount --bind "$IMAGES" "$ROOTFS/mnt"
printf 'version = 3\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n' > "$ROOTFS/tmp/config.toml"
chroot "$ROOTFS" containerd --config /tmp/config.toml &
for _ in $(seq 100); do
    chroot "$ROOTFS" ctr version > /dev/null 2>&1 && break
    sleep 0.1
done
for name in "$@"; do chroot "$ROOTFS" ctr -n k8s.io images import --local "/mnt/$name.tar"; done
kill %1
wait %1 || true
umount "$ROOTFS/var/lib/containerd"
"""
"""Run in a mount and process namespace of its own, which takes all mounts and containerd away when it ends."""


def image_disk() -> None:
    """The images in a disk of the node's, put there by the node's own containerd, run here for a moment: unpacking them
    in emulation takes minutes.
    """
    names = ("pause", "busybox", "podtally", "prometheus")
    parts = [(CACHE / ".disk").read_bytes(), (IMAGES / ".podtally").read_bytes()]
    digest = fingerprint(*parts, *(str((IMAGES / f"{name}.tar").stat().st_mtime_ns).encode() for name in names))
    if made_from(CACHE / ".image-disk", digest, IMAGE_DISK):
        return
    new = IMAGE_DISK.with_suffix(".new")
    new.unlink(missing_ok=True)
    run("truncate", "-s", "8G", str(new))
    run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1", "-m", "0", str(new))
    places = {"ROOTFS": str(ROOTFS), "DISK": str(new), "IMAGES": str(IMAGES)}
    script = ("bash", "-euc", _FILL, "bash", *names)
    run("unshare", "--mount", "--pid", "--fork", "--kill-child", *script, environment={**os.environ, **places})
    new.rename(IMAGE_DISK)
    (CACHE / ".image-disk").write_text(digest)


def changed_image() -> Path:
    """The last image with the work tree's collector in a layer above it: in seconds, where building it from the
    Dockerfile takes more than a minute. What the collector depends on is built anew if it has changed.
    """
    if not (IMAGES / ".podtally").exists() or not (IMAGES / ".podtally").read_text().startswith(_dependencies_digest()):
        images()
    container = _buildah("from", "--pull-never", COLLECTOR_IMAGE)
    try:
        root = Path(_buildah("mount", container))
        package = next(root.glob("opt/podtally/lib/python3*/site-packages/collector"))
        shutil.rmtree(package)
        for file in _sources():
            copy = package.parent / file.relative_to(REPO)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, copy)
        compiling = ("-m", "compileall", "-q", "-f", "--invalidation-mode", "unchecked-hash")
        python = ("/opt/podtally/bin/python3", *compiling, f"/{package.relative_to(root)}")
        run("chroot", str(root), "env", "PYTHONPYCACHEPREFIX=/opt/podtally/pycache", *python)
        _buildah("commit", "--quiet", container, CHANGED_IMAGE)
    finally:
        _buildah("rm", container)
    return _saved(CHANGED_IMAGE, IMAGES / "changed.tar")


def _saved(image: str, archive: Path) -> Path:
    """An archive of an image of the store's, under the name that the node's pods ask for."""
    archive.unlink(missing_ok=True)
    _buildah("push", "--quiet", image, f"docker-archive:{archive}:{COLLECTOR_IMAGE}")
    return archive


def without(archive: Path, known: set[str]) -> bytes:
    """The image of an archive as a tar of an OCI layout, less the blobs of which the digests are known."""
    with tarfile.open(archive) as saved:
        (image,) = json.load(saved.extractfile("manifest.json"))  # type: ignore[arg-type]
        config = saved.extractfile(image["Config"]).read()  # type: ignore[union-attr]
        blobs = {f"sha256:{hashlib.sha256(config).hexdigest()}": config}
        layers = []
        for digest, name in zip(json.loads(config)["rootfs"]["diff_ids"], image["Layers"], strict=True):
            member = saved.getmember(name)
            layers.append({"mediaType": f"{_OCI}.layer.v1.tar", "digest": digest, "size": member.size})
            if digest not in known:
                blobs[digest] = saved.extractfile(member).read()  # type: ignore[union-attr]
    described = {"mediaType": f"{_OCI}.config.v1+json", "digest": next(iter(blobs)), "size": len(config)}
    manifest = json.dumps(
        {"schemaVersion": 2, "mediaType": f"{_OCI}.manifest.v1+json", "config": described, "layers": layers}
    ).encode()
    top = {
        "mediaType": f"{_OCI}.manifest.v1+json",
        "digest": f"sha256:{hashlib.sha256(manifest).hexdigest()}",
        "size": len(manifest),
        "annotations": {"io.containerd.image.name": image["RepoTags"][0]},
    }
    blobs[top["digest"]] = manifest  # type: ignore[index]
    files = {f"blobs/{digest.replace(':', '/')}": data for digest, data in blobs.items()}
    files["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [top]}).encode()
    return _tar(files)


def _tar(files: dict[str, bytes]) -> bytes:
    """A tar of files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def run(*command: str, cwd: Path | None = None, environment: dict[str, str] | None = None) -> str:
    """What a command prints. Raises: E2EError with what it said."""
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise E2EError(f"{' '.join(command[:6])} failed ({done.returncode}):\n{done.stderr.strip()[-1500:]}")
    return done.stdout
