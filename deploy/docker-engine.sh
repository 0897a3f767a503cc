#!/usr/bin/env bash
# A private Docker engine for `make image-test`, from Debian's packages, where none is running.
#
#   deploy/docker-engine.sh up     start it, and print what to export: eval "$(deploy/docker-engine.sh up)"
#   deploy/docker-engine.sh down   stop the engine that `up` started; its images are kept
#   deploy/docker-engine.sh clear  the same, and delete everything that it kept
#
# Needs root on Debian 12, and a kernel with overlayfs and iptables. Where the Python base image
# cannot be pulled, since package registries are reached and no image registry, it also makes local
# stand-ins: Debian's own Python 3.11, and the same with this machine's pip settings to build in.
set -euo pipefail

home=${DOCKER_ENGINE_HOME:-/var/tmp/stepback-docker}
export DOCKER_HOST=unix://$home/docker.sock
official_image=python:3.11.15-slim-bookworm
python_image=stepback-stand-in/python:3.11-slim-bookworm
build_image=stepback-stand-in/build:3.11-slim-bookworm

up() {
  install_packages >&2
  mkdir -p "$home"
  docker info >/dev/null 2>&1 || start >&2
  echo "export DOCKER_HOST=$DOCKER_HOST DOCKER_BUILDKIT=0 COMPOSE_DOCKER_CLI_BUILD=0"
  if ! timeout 120 docker pull --quiet "$official_image" >/dev/null 2>&1; then
    make_python_image >&2
    make_build_image >&2
    echo "export PYTHON_IMAGE=$python_image BUILD_IMAGE=$build_image"
  fi
}

install_packages() {
  for tool in docker dockerd docker-compose debootstrap iptables; do
    command -v "$tool" >/dev/null || missing=yes
  done
  [ -z "${missing:-}" ] && return
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends \
    docker.io docker-compose debootstrap iptables >/dev/null
}

start() {
  ( # A descriptor that it inherited, of a lock for one, it would hold for as long as it lives.
    for descriptor in /proc/self/fd/*; do
      [ "${descriptor##*/}" -le 2 ] || eval "exec ${descriptor##*/}>&-"
    done
    exec setsid dockerd --data-root "$home/data" --exec-root "$home/exec" -H "$DOCKER_HOST" \
      --pidfile "$home/docker.pid" >"$home/dockerd.log" 2>&1 </dev/null
  ) &
  for _ in $(seq 60); do
    docker info >/dev/null 2>&1 && return
    sleep 0.5
  done
  echo "The Docker engine did not start; the end of $home/dockerd.log:" >&2
  tail -5 "$home/dockerd.log" >&2
  exit 1
}

make_python_image() {
  docker image inspect "$python_image" >/dev/null 2>&1 && return
  local root=$home/rootfs mirror
  mirror=$(apt-get indextargets --format '$(SITE)' | grep -E '/debian/?$' | head -1)
  rm -rf "$root"
  debootstrap --variant=minbase --include=ca-certificates,python3,python3-pip,python3-venv \
    bookworm "$root" "$mirror" >"$home/debootstrap.log" 2>&1 || { tail -5 "$home/debootstrap.log"; exit 1; }
  # The official image calls it python, and has no lists or archives of apt either.
  ln -sf python3 "$root/usr/bin/python"
  rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/*.deb
  tar -C "$root" -c . | docker import --change 'CMD ["python3"]' - "$python_image" >/dev/null
  rm -rf "$root"
}

# What this machine's pip is told must not end in an image that is shipped: only stages that build
# use this one.
make_build_image() {
  docker image inspect "$build_image" >/dev/null 2>&1 && return
  local context=$home/build name
  rm -rf "$context"
  mkdir -p "$context/root/etc/ssl/certs"
  cp -L /etc/ssl/certs/ca-certificates.crt "$context/root/etc/ssl/certs/"
  [ ! -f /etc/pip.conf ] || cp /etc/pip.conf "$context/root/etc/"
  { echo "FROM $python_image"
    echo "COPY root /"
    for name in PIP_CERT PIP_FIND_LINKS PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_DEFAULT_TIMEOUT SSL_CERT_FILE; do
      [ -z "${!name:-}" ] || echo "ENV $name=${!name}"
    done
  } >"$context/Dockerfile"
  if [ -d "${PIP_FIND_LINKS:-}" ]; then
    mkdir -p "$context/root$PIP_FIND_LINKS"
    cp -r "$PIP_FIND_LINKS/." "$context/root$PIP_FIND_LINKS/"
  fi
  DOCKER_BUILDKIT=0 docker build --quiet --tag "$build_image" "$context" 2>/dev/null
  rm -rf "$context"
}

down() {
  [ ! -f "$home/docker.pid" ] || { kill "$(cat "$home/docker.pid")" && sleep 2; }
}

case "${1:-}" in
  up) up ;;
  down) down ;;
  clear) down; rm -rf "$home" ;;
  *) sed -n '2,11p' "$0"; exit 2 ;;
esac
