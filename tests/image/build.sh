#!/usr/bin/env bash
# Builds the image for real and starts the collector from it on a recording. No Docker engine and no registry of images
# is needed: buildah builds without a daemon, on a base image made here from Debian's packages.
#
#   tests/image/build.sh [STORE]
#
# STORE keeps the base and the image (about 1 GB): default ${XDG_CACHE_HOME:-$HOME/.cache}/podtally/image. As root.
#
#   RECORDING=FILE   the recording to run on  (default tests/fixtures/cgroupfs/parity-1hz.tar.zst)
#   PORT=19753       the port on 127.0.0.1 that the served replay listens on
#   REBUILD_BASE=1   make the base image anew, to have Debian's newest packages in it
#
# pip inside the build is configured as pip outside it is (pip config list), and the base is made from this machine's
# apt sources: neither is named here, nor left in the image.
set -Eeuo pipefail

repo=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
store=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/podtally/image}
recording=${RECORDING:-$repo/tests/fixtures/cgroupfs/parity-1hz.tar.zst}
port=${PORT:-19753}
base=localhost/podtally-base:bookworm
image=localhost/podtally:test

step() { printf '\n==> %s\n' "$*"; }
say() { printf '    %s\n' "$*"; }
die() { printf 'build.sh: %s\n' "$*" >&2; exit 1; }
now_ms() { date +%s%3N; }

(($(id -u) == 0)) || die "run it as root: chroot isolation and mmdebstrap's root mode need it."
missing=()
for tool in buildah mmdebstrap curl python3 unshare; do
    command -v "$tool" > /dev/null || missing+=("$tool")
done
((${#missing[@]} == 0)) || die "not installed: ${missing[*]} (on Debian: apt-get install buildah mmdebstrap curl)."
[[ -f $repo/requirements.lock ]] || die "requirements.lock is missing: the image installs its dependencies from it."
[[ -f $recording ]] || die "there is no recording at $recording; name one by RECORDING=FILE."
case $(realpath -m -- "$store")/ in
    "$repo"/*) die "the store $store lies inside the repository, and would be sent to the builder with it." ;;
esac

mkdir -p -- "$store"
store=$(realpath -- "$store")
work=$(mktemp -d "$store/work.XXXXXX")
container=""
server=""

# vfs is plain copies of folders: it works in a sandbox, where overlay mounts are often refused.
buildah() { command buildah --root "$store/storage" --runroot "$store/run" --storage-driver vfs "$@"; }

# All processes below a process, children before parents.
descendants() {
    local child
    for child in $(cat "/proc/$1/task/"*/children 2> /dev/null || true); do
        descendants "$child"
        printf '%s\n' "$child"
    done
}

# Only processes that this script started: buildah's, by its id, and what runs below it.
clean() {
    local status=$?
    trap - EXIT
    if [[ -n $server ]]; then
        # shellcheck disable=SC2046  # one word an id
        kill -KILL $(descendants "$server") "$server" 2> /dev/null || true
        wait "$server" 2> /dev/null || true
    fi
    if [[ -n $container ]]; then
        buildah umount "$container" > /dev/null 2>&1 || true
        buildah rm "$container" > /dev/null 2>&1 || true
    fi
    rm -rf -- "$work"
    exit "$status"
}
trap clean EXIT
trap 'printf "build.sh: line %s failed: %s\n" "$LINENO" "$BASH_COMMAND" >&2' ERR
trap 'exit 130' INT
trap 'exit 143' TERM

make_base() {
    # This machine's own sources of bookworm, other suites' and other vendors' left out.
    local sources=() file
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
        if [[ -f $file ]] && grep -Eq '^(deb .* bookworm |Suites:.* bookworm( |$))' "$file" \
            && grep -Eq '^(deb .* main|Components:.* main)' "$file"; then
            sources+=("$file")
        fi
    done
    ((${#sources[@]} > 0)) || say "no apt source of bookworm on this machine: mmdebstrap takes its default"
    local options=() setting
    for setting in Acquire::http::Proxy Acquire::https::Proxy Acquire::Check-Valid-Until Acquire::Check-Date; do
        file=$(apt-config dump --format '%f "%v";%n' "$setting" 2> /dev/null || true)
        [[ -z $file || $file == *' "";' ]] || options+=("--aptopt=$file")
    done
    # Without device nodes, which a sandbox may not make; without manuals and translations, as "slim" images are.
    mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,ca-certificates --skip=output/dev \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' "${options[@]}" bookworm "$work/base.tar" "${sources[@]}"
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$work/base.tar" / > /dev/null
    buildah config --cmd /usr/bin/python3 "$container"
    buildah commit --quiet --rm "$container" "$base" > /dev/null
    container=""
    rm -- "$work/base.tar"
}

# How pip reaches its index on this machine, as a pip.conf for the build; its other settings are about this machine's
# folders and mean nothing in there. A certificate file goes along as a secret of its own.
write_pip_conf() {
    (umask 077 && python3 -m pip config list | python3 -c '
import ast, sys

pip_conf, cert_path = sys.argv[1:]
wanted = {"index-url", "extra-index-url", "trusted-host", "proxy", "cert", "timeout", "default-timeout", "retries"}
settings: dict[str, str] = {}
for line in sys.stdin:
    key, _, value = line.rstrip("\n").partition("=")
    section, _, name = key.rpartition(".")
    if section in ("global", "install", ":env:") and name in wanted:
        settings[name] = ast.literal_eval(value)  # the environment comes last, and beats the files
cert = settings.get("cert")
if cert:
    with open(cert, "rb") as source, open(cert_path, "wb") as copy:
        copy.write(source.read())
    settings["cert"] = "/run/secrets/ca.pem"
with open(pip_conf, "w", encoding="utf-8") as out:
    out.write("[global]\n")
    for name, value in settings.items():
        out.write(name + " = " + value.replace("\n", "\n    ") + "\n")
' "$1" "$2")
    [[ -f $2 ]] || : > "$2"
}

size() { buildah images --format '{{.Size}}' "$1"; }

step "Base image: Debian bookworm with python3, from Debian's packages"
if [[ -z ${REBUILD_BASE:-} ]] && buildah inspect --type image "$base" > /dev/null 2>&1; then
    say "kept from an earlier run (REBUILD_BASE=1 makes it anew)"
else
    make_base
fi
say "size: $(size "$base")"

step "Image: the repository's Dockerfile on that base"
write_pip_conf "$work/pip.conf" "$work/ca.pem"
buildah bud --isolation chroot --build-arg "BASE=$base" --pull-never \
    --secret "id=pip.conf,src=$work/pip.conf" --secret "id=ca.pem,src=$work/ca.pem" \
    --tag "$image" "$repo"
buildah rmi --prune > /dev/null # the image of the run before, which has lost its name
say "size: $(size "$image"), of which the base is $(size "$base")"

step "What is in the image"
container=$(buildah from --pull-never "$image")
root=$(buildah mount "$container")
config=$(buildah inspect --type image --format '{{.OCIv1.Config.User}} {{.OCIv1.Config.Entrypoint}} {{.OCIv1.Config.Cmd}}' "$image")
[[ $config == "65534:65534 [podtally] [serve]" ]] || die "user, entry point and command are: $config"
say "user, entry point, command: $config"
# Relative names: the store itself may lie below a folder of such a name (~/.cache).
unwanted=$(cd -- "$root" && find opt etc root tmp run -xdev \
    \( -name pip.conf -o -name ca.pem -o -name '*.whl' -o -path '*/.cache/*' -o -path '*/site-packages/pip/*' \
       -o -path '*/site-packages/*/tests/*' -o -path '*/site-packages/*/docs/*' \) -print -quit)
[[ -z $unwanted ]] || die "the image holds what it should not: $unwanted"
[[ ! -e $root/src && ! -e $root/opt/build ]] || die "the image holds the build stage's folders."
foreign=$(find "$root/opt/podtally" \( ! -uid 0 -o -perm /022 \) ! -type l -print -quit)
[[ -z $foreign ]] || die "uid 65534 could write: $foreign"
say "no pip, pip settings, caches, tests or documents; nothing of podtally's that its user could write"
say "/opt/podtally: $(du -sm "$root/opt/podtally" | cut -f 1) MB, of which bytecode $(du -sm "$root/opt/podtally/pycache" | cut -f 1) MB"

share=$root/usr/share/podtally
(cd -- "$root" && sha256sum --quiet -c usr/share/podtally/SHA256SUMS) || die "a file is not the one that SHA256SUMS names."
listed=$(python3 -c 'import json, sys; print(*sorted(one["purl"] for one in json.load(sys.stdin)["components"] if "purl" in one), sep="\n")' \
    < "$share/sbom.cdx.json")
there=$(cd -- "$root"/opt/podtally/lib/python3*/site-packages && find . -maxdepth 1 -name '*.dist-info' ! -name 'podtally-*' \
    | wc -l)
[[ $(wc -l <<< "$listed") == "$there" ]] || die "the SBOM lists other packages than the $there that are installed."
mkdir -p -- "$store/sbom"
cp -- "$share/sbom.cdx.json" "$share/SHA256SUMS" "$store/sbom/"
say "SBOM: $there packages; SHA256SUMS: $(wc -l < "$share/SHA256SUMS") files, all as named; copies in $store/sbom"

modules=$(cd -- "$repo" && find collector -name '*.py' | sort)
installed=$(cd -- "$root"/opt/podtally/lib/python3*/site-packages && find collector -name '*.py' | sort)
[[ $installed == "$modules" ]] || die "the image has not the repository's modules: $(diff <(echo "$modules") <(echo "$installed") | grep '^[<>]')"
say "all $(wc -l <<< "$modules") modules of the package"

# As the DaemonSet runs it: uid 65534, no capability, the recording read-only. chroot isolation shares this machine's
# network.
run() {
    buildah run --isolation chroot --user 65534:65534 --cap-drop all \
        --volume "$recording:/recordings/$(basename -- "$recording"):ro" "$container" -- "$@"
}
inside=/recordings/$(basename -- "$recording")
touch "$work/before"

step "podtally replay --once"
started=$(now_ms)
run podtally replay --once "$inside" > "$work/once.txt"
say "$(wc -l < "$work/once.txt") lines, $(grep -c '^pod_cpu_usage_cores{' "$work/once.txt" || true) of them pod_cpu_usage_cores, in $(($(now_ms) - started)) ms"
grep -m 3 '^pod_cpu_usage_cores{' "$work/once.txt" | sed 's/^/    /' \
    || die "no pod_cpu_usage_cores in what replay --once printed."

step "podtally replay --loop, served on 127.0.0.1:$port"
if curl --silent --output /dev/null "http://127.0.0.1:$port/"; then
    die "something else already answers on 127.0.0.1:$port; name another port by PORT=N."
fi
started=$(now_ms)
run podtally replay "$inside" --loop --listen "127.0.0.1:$port" > "$work/serve.log" 2>&1 &
server=$!
for path in /healthz /readyz /metrics; do
    until status=$(curl --silent --max-time 5 --output "$work/answer.txt" --write-out '%{http_code}' \
        "http://127.0.0.1:$port$path") && [[ $status == 200 ]]; do
        if ! kill -0 "$server" 2> /dev/null || (($(now_ms) - started > 600000)); then
            sed 's/^/    /' "$work/serve.log" >&2
            die "no answer 200 from $path (last: ${status:-none}); the collector's log is above."
        fi
        sleep 0.1
    done
    say "$path: 200 after $(($(now_ms) - started)) ms, $(wc -c < "$work/answer.txt") bytes"
done
# The first rates are there after 5 s of frames.
for _ in $(seq 60); do
    grep -q '^pod_cpu_usage_cores{' "$work/answer.txt" && break
    sleep 0.5
    curl -fsS -o "$work/answer.txt" "http://127.0.0.1:$port/metrics"
done
grep -q '^pod_cpu_usage_cores{' "$work/answer.txt" || die "/metrics has no pod_cpu_usage_cores."

# buildah does not pass signals on: the collector is the process lowest below it.
below=$(descendants "$server")
collector=${below%%$'\n'*}
[[ -n $collector ]] || die "the collector's process was not found below buildah's."
say "collector: uid $(awk '/^Uid:/ {print $2}' "/proc/$collector/status"), capabilities $(awk '/^CapEff:/ {print $2}' "/proc/$collector/status"), memory $(awk '/^VmRSS:/ {print $2}' "/proc/$collector/status") kB"
started=$(now_ms)
kill -TERM "$collector"
status=0
wait "$server" || status=$?
server=""
say "SIGTERM: exit code $status after $(($(now_ms) - started)) ms"
((status == 0)) || { sed 's/^/    /' "$work/serve.log" >&2; die "the collector did not end cleanly; its log is above."; }

step "podtally replay --once, root file system read-only"
# chroot isolation cannot mount the root read-only, so this run does without buildah: a mount namespace of its own, in
# which the container's root is, with this machine's /proc and the recording's folder in it.
# shellcheck disable=SC2016  # the inner shell expands it
ROOT=$root RECORDINGS=$(dirname -- "$recording") unshare --mount bash -euc '
    mount --bind "$ROOT" "$ROOT"
    mount -o remount,bind,ro "$ROOT"
    mount --rbind /proc "$ROOT/proc"
    mount --bind "$RECORDINGS" "$ROOT/mnt"
    if touch "$ROOT/tmp/probe" 2> /dev/null; then echo "the root is not read-only" >&2; exit 1; fi
    PATH=/opt/podtally/bin:/usr/sbin:/usr/bin:/sbin:/bin
    export PATH PYTHONDONTWRITEBYTECODE=1 PYTHONPYCACHEPREFIX=/opt/podtally/pycache
    exec chroot --userspec=65534:65534 "$ROOT" podtally replay --once "/mnt/$1"
' bash "$(basename -- "$recording")" > "$work/read-only.txt"
# What tells of the process itself differs from run to run; everything else may not.
readings() { grep -Ev '^(# (HELP|TYPE|UNIT) )?(podtally|process|python)_' "$1"; }
cmp <(readings "$work/once.txt") <(readings "$work/read-only.txt") || die "it printed other numbers than before."
say "the same $(readings "$work/read-only.txt" | wc -l) lines as before"
written=$(find "$root" -xdev -uid 65534 -newer "$work/before" -print -quit)
[[ -z $written ]] || die "an earlier run wrote into the image: $written"
say "and the runs before it wrote nothing into the image either"

step "Done: $image in $store"
