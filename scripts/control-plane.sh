#!/usr/bin/env bash
# Brings kube-apiserver, etcd and kubectl for the API-server tests into the user's cache folder:
#   1. from KUBEBUILDER_ASSETS, if that folder has them;
#   2. else from the official envtest archive;
#   3. else built from the sources pinned in tests/control-plane/go.mod (about ten minutes, once).
# With --check it only says, in one line, what is missing.
set -euo pipefail

VERSION=1.37.0 # of the envtest archive; the sources are pinned in go.mod
HERE=$(cd "$(dirname "$0")/.." && pwd)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/finetune-operator/control-plane
TOOLS=(kube-apiserver etcd kubectl)

has_all() {
  local tool
  for tool in "${TOOLS[@]}"; do [[ -x $1/$tool ]] || return 1; done
}

if [[ ${1:-} == --check ]]; then
  { [[ -n ${KUBEBUILDER_ASSETS:-} ]] && has_all "$KUBEBUILDER_ASSETS"; } || has_all "$CACHE" || {
    echo "control-plane: no kube-apiserver here, so the API-server tests will be skipped; \`make control-plane\` brings it"
    exit 1
  }
  exit 0
fi

if has_all "$CACHE"; then
  echo "control-plane: already in $CACHE"
  exit 0
fi
mkdir -p "$CACHE"
WORK=$(mktemp -d "$CACHE/.work-XXXXXX")
trap 'rm -rf "$WORK"' EXIT

take() { # the tools in folder $1, all or none
  local tool
  for tool in "${TOOLS[@]}"; do cp -L "$1/$tool" "$CACHE/.$tool" && chmod 755 "$CACHE/.$tool"; done
  for tool in "${TOOLS[@]}"; do mv "$CACHE/.$tool" "$CACHE/$tool"; done
  echo "control-plane: $("$CACHE/kube-apiserver" --version), etcd and kubectl are in $CACHE"
}

if [[ -n ${KUBEBUILDER_ASSETS:-} ]] && has_all "$KUBEBUILDER_ASSETS"; then
  echo "control-plane: taking them from KUBEBUILDER_ASSETS"
  take "$KUBEBUILDER_ASSETS"
  exit 0
fi

case $(uname -m) in x86_64) arch=amd64 ;; aarch64 | arm64) arch=arm64 ;; *) arch=unknown ;; esac
name=envtest-v$VERSION-$(uname -s | tr '[:upper:]' '[:lower:]')-$arch.tar.gz
url=https://github.com/kubernetes-sigs/controller-tools/releases/download/envtest-v$VERSION/$name
echo "control-plane: trying the envtest archive $name"
if curl --fail --silent --show-error --location --connect-timeout 10 --max-time 300 -o "$WORK/$name" "$url" &&
  curl --fail --silent --show-error --location --connect-timeout 10 --max-time 30 -o "$WORK/$name.sha512" "$url.sha512" &&
  [[ $(sha512sum <"$WORK/$name" | cut -d' ' -f1) == "$(cut -d' ' -f1 <"$WORK/$name.sha512")" ]]; then
  tar -xzf "$WORK/$name" -C "$WORK"
  take "$(dirname "$(find "$WORK" -name kube-apiserver -type f | head -n1)")"
  exit 0
fi

command -v go >/dev/null || {
  echo "control-plane: the archive could not be had, and there is no go to build from source: install Go 1.26 or newer, or set KUBEBUILDER_ASSETS" >&2
  exit 1
}
echo "control-plane: the archive could not be had; building from source, about ten minutes"
cd "$HERE/tests/control-plane"
export GOFLAGS=-mod=readonly CGO_ENABLED=0 GOBIN=
version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
stamp="-X k8s.io/component-base/version.gitVersion=$version -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=$(cut -d. -f2 <<<"$version")"
stamp+=" -X k8s.io/client-go/pkg/version.gitVersion=$version"
step=0
for tool in "${TOOLS[@]}"; do
  case $tool in etcd) package=go.etcd.io/etcd/server/v3 ;; *) package=k8s.io/kubernetes/cmd/$tool ;; esac
  step=$((step + 1)) began=$SECONDS
  echo "control-plane: [$step/${#TOOLS[@]}] $tool"
  go build -trimpath -ldflags "-s -w $stamp" -o "$WORK/$tool" "$package" &
  build=$!
  while kill -0 $build 2>/dev/null; do
    sleep 1
    (((SECONDS - began) % 30 == 0)) && echo "control-plane:       $tool, $((SECONDS - began)) s"
  done || true
  wait $build
done
take "$WORK"
