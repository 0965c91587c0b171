#!/bin/sh
# Installs what `make test-compose` starts containers with: Podman with runc and netavark, from the distribution, and
# mmdebstrap, which makes the base of an image. Nothing is configured: the tests write a configuration of their own. Needs root and apt; says why it can't otherwise.
set -eu

missing=
for tool in podman runc busybox mmdebstrap; do command -v "$tool" >/dev/null || missing="$missing $tool"; done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "no$missing, and no way to install it here: the tests in containers will be skipped"
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# Of Podman's recommendations, those that networks between containers need.
apt-get install -qq -y --no-install-recommends podman runc netavark aardvark-dns iptables busybox-static mmdebstrap >/dev/null ||
    echo "apt-get could not install Podman: the tests in containers will be skipped"
